"""Every tuning method of our own from the command line: train, go on, answer, merge or say why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from swift import tuners
from swift.cli import main
from swift.tuners.peft_tuners import known_warnings

METHODS: dict[str, Any] = {
    "adalora": "--sft_type adalora --adalora_init_r 6 --adalora_target_r 2 --adalora_tinit 1",
    "longlora": "--sft_type longlora --max_length 64",
    "loftq": "--init_lora_weights loftq",
    "adapter": "--sft_type adapter --adapter_length 8",
    "reft": "--sft_type reft --gradient_checkpointing true",
    "llamapro": "--sft_type llamapro --llamapro_num_new_blocks 2",
    "swift-lora": "--tuner_backend swift",
    "swift-adapter": "--tuner_backend swift --sft_type adapter --adapter_length 8",
    "swift-llamapro": "--tuner_backend swift --sft_type llamapro --llamapro_num_new_blocks 1",
}
UNMERGED = ("adapter", "reft", "swift-adapter")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = (json.dumps({"query": f"Say {i}", "response": f"{i} it is, " * 4}) + "\n" for i in range(16))
    path.write_text("".join(lines))
    return path


def train(model: Path, rows: Path, output: Path, *words: str, steps: int) -> Path:
    """`swift sft` of so many steps, which saves every second one. -> the run's folder."""
    common = f"--model_id_or_path {model} --dataset {rows} --output_dir {output} --add_output_dir_suffix false"
    common += f" --max_steps {steps} --save_steps 2 --batch_size 2 --gradient_accumulation_steps 1 --report_to none"
    common += " --learning_rate 1e-2 --lora_dropout 0.1 --warmup_ratio 0 --lr_scheduler_type constant"
    assert main(["sft", *common.split(), "--evaluation_strategy", "no", *words]) == 0
    return output


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    files = [*checkpoint.glob("*.safetensors"), *checkpoint.glob("*/*.safetensors")]
    return {f"{file.name}:{name}": tensor for file in files for name, tensor in load_file(file).items()}


def optimizer(checkpoint: Path) -> dict[str, Any]:
    return torch.load(checkpoint / "optimizer.pt", weights_only=True)


METHODS |= {
    "galore": "--sft_type full --use_galore true --galore_rank 4 --galore_update_proj_gap 3 --optim adafactor",
    "lisa": "--sft_type full --lisa_activated_layers 1 --lisa_step_interval 1",
    "long-ce": "--loss_name long-ce",
    "8 bit": "--optim adamw_8bit --target_modules ALL --lora_rank 32",
}
WHOLE = ("galore", "lisa")
SLOW = tuple(name for name in METHODS if name not in ("adalora", "reft", "long-ce", "8 bit"))
"""Most of the others stand in `test_tuners_everywhere` too, on every kind of model."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in METHODS])
def test_a_run_that_was_interrupted_ends_as_the_whole_one(
    name: str, tiny_llama_dir: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = METHODS[name].split()
    whole = train(tiny_llama_dir, rows, tmp_path / "whole", *words, steps=4)
    first = whole / "checkpoint-2"
    going_on = ("--resume_from_checkpoint", str(first))
    rest = train(tiny_llama_dir, rows, tmp_path / "rest", *words, *going_on, steps=4)
    expected, got = weights(whole / "checkpoint-4"), weights(rest / "checkpoint-4")
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[key], got[key]) for key in expected)
    capsys.readouterr()

    infer = ["infer", "--ckpt_dir", str(whole / "checkpoint-4"), "--val_dataset", str(rows), "--show_dataset_sample"]
    assert main([*infer, "2", "--max_new_tokens", "4", "--result_dir", str(tmp_path / "answers")]) == 0
    (answers,) = (tmp_path / "answers").iterdir()
    assert len(answers.read_text().splitlines()) == 2

    merge = main(["merge-lora", "--ckpt_dir", str(whole / "checkpoint-4")])
    if name in WHOLE:
        assert merge == 2
        assert "it is a whole model" in capsys.readouterr().err
    elif name in UNMERGED:
        assert merge == 2
        assert "cannot be merged" in capsys.readouterr().err
    else:
        assert merge == 0
        assert (whole / "checkpoint-4-merged" / "config.json").is_file()


@pytest.mark.parametrize(
    "words", ["--sft_type adapter", "--sft_type reft", "--sft_type llamapro --llamapro_num_new_blocks 1"]
)
def test_the_reference_of_dpo_is_the_model_at_the_start(
    words: str, tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    lines = ({"query": f"Say {i}", "response": f"{i} it is", "rejected_response": f"no {i}"} for i in range(8))
    pairs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    common = f"--model_id_or_path {tiny_llama_dir} --dataset {pairs} --output_dir {tmp_path / 'out'} --max_steps 2"
    common += " --add_output_dir_suffix false --batch_size 4 --gradient_accumulation_steps 1 --report_to none"
    common += " --evaluation_strategy no --logging_steps 1 --learning_rate 1e-3 --warmup_ratio 0 --save_strategy no"
    assert main(["rlhf", "--rlhf_type", "dpo", *common.split(), *words.split()]) == 0
    log = [json.loads(line) for line in (tmp_path / "out" / "logging.jsonl").read_text().splitlines()]
    first, second = (line["rewards/margins"] for line in log if "rewards/margins" in line)
    assert first == pytest.approx(0, abs=1e-5)
    assert abs(second) > 1e-4


def test_the_layout_of_2_5_becomes_that_of_peft(tiny_llama_dir: Path, rows: Path, tmp_path: Path) -> None:
    checkpoint = train(tiny_llama_dir, rows, tmp_path / "run", "--tuner_backend", "swift", steps=2) / "checkpoint-2"
    assert not (checkpoint / "adapter_config.json").exists()
    own = load_file(checkpoint / "default" / "adapter_model.safetensors")
    assert "model.layers.0.self_attn.q_proj.lora_A.default.weight" in own
    assert main(["export", "--ckpt_dir", str(checkpoint), "--to_peft_format", "true"]) == 0
    target = checkpoint.with_name("checkpoint-2-peft")
    assert json.loads((target / "peft_report.json").read_text())["max_difference"] < 1e-4
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    with known_warnings():
        tuned = peft.PeftModel.from_pretrained(base, str(target)).eval()
    again = tuners.load(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), checkpoint)
    ids = torch.arange(3, 12)[None]
    with torch.no_grad():
        torch.testing.assert_close(tuned(input_ids=ids).logits, again(input_ids=ids).logits)
    assert main(["export", "--ckpt_dir", str(target), "--to_peft_format", "true"]) == 0
    assert main(["export", "--ckpt_dir", str(checkpoint), "--to_peft_format", "true"]) == 2
    assert main(["export", "--ckpt_dir", str(tiny_llama_dir), "--to_peft_format", "true"]) == 2


@pytest.mark.parametrize(
    ("sft_type", "file"),
    [("lora", "adapter_model.bin"), pytest.param("full", "pytorch_model.bin", marks=pytest.mark.slow)],
)
def test_weights_in_the_older_format(
    sft_type: str, file: str, tiny_llama_dir: Path, rows: Path, tmp_path: Path
) -> None:
    words = ("--save_safetensors", "false", "--sft_type", sft_type)
    whole = train(tiny_llama_dir, rows, tmp_path / "whole", *words, steps=4)
    going_on = ("--resume_from_checkpoint", str(whole / "checkpoint-2"))
    rest = train(tiny_llama_dir, rows, tmp_path / "rest", *words, *going_on, steps=4)
    assert not [*(whole / "checkpoint-4").glob("*.safetensors")]
    expected, got = (torch.load(run / "checkpoint-4" / file, weights_only=True) for run in (whole, rest))
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    answers = f"infer --ckpt_dir {whole / 'checkpoint-4'} --val_dataset {rows} --show_dataset_sample 1"
    assert main([*answers.split(), "--max_new_tokens", "2", "--result_dir", str(tmp_path / "answers")]) == 0
