"""Training on a quantized base: from the command line to a checkpoint that answers, and exactly on from there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from swift import models
from swift.cli import main
from swift.plan.model import ModelPlan
from swift.plan.quantization import QuantPlan
from swift.training.meta_model import saved_by_quantizing

pytest.importorskip("hqq", reason="`make test` runs these with HQQ, which is installed apart")

QUANTS = {
    "bnb4": "--quantization_bit 4",
    "bnb8": "--quantization_bit 8",
    "hqq4": "--quant_method hqq --quantization_bit 4 --hqq_axis 1",
}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"query": f"Say {i}", "response": f"{i} it is"}) + "\n" for i in range(20)))
    return path


def train(model: Path, rows: Path, output: Path, *words: str) -> Path:
    common = "--add_output_dir_suffix false --batch_size 2 --gradient_accumulation_steps 1 --learning_rate 0.01"
    place = ["--model_id_or_path", str(model), "--dataset", str(rows), "--output_dir", str(output)]
    assert main(["sft", *place, *common.split(), "--target_modules", "ALL", *words]) == 0
    return output


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [event["loss"] for event in events(run) if "loss" in event]


@pytest.mark.parametrize("quant", QUANTS)
def test_evaluations_between_steps_leave_training_as_it_is(
    quant: str, tiny_llama_dir: Path, rows: Path, tmp_path: Path
) -> None:
    words = [*QUANTS[quant].split(), *["--max_steps", "6", "--logging_steps", "1", "--dataset_test_ratio", "0.2"]]
    often = train(tiny_llama_dir, rows, tmp_path / "often", *words, "--eval_steps", "2")
    never = train(tiny_llama_dir, rows, tmp_path / "never", *words, "--eval_steps", "100")
    assert losses(often) == losses(never)
    assert losses(often)[-1] < losses(often)[0]
    generated = [*words, "--eval_steps", "3", "--predict_with_generate", "true", "--max_new_tokens", "4"]
    assert losses(train(tiny_llama_dir, rows, tmp_path / "generated", *generated)) == losses(never)


@pytest.mark.parametrize("quant", QUANTS)
def test_a_resumed_run_is_the_run_that_was_not_stopped(
    quant: str, tiny_llama_dir: Path, rows: Path, tmp_path: Path
) -> None:
    words = [
        *QUANTS[quant].split(),
        *["--max_steps", "4", "--save_steps", "2", "--eval_steps", "2", "--logging_steps", "1"],
    ]
    whole = train(tiny_llama_dir, rows, tmp_path / "whole", *words)
    (tmp_path / "again").mkdir()
    half = (whole / "checkpoint-2").rename(tmp_path / "again" / "checkpoint-2")
    again = train(tiny_llama_dir, rows, tmp_path / "again", *words, "--resume_from_checkpoint", str(half))
    one, other = (load_file(run / "checkpoint-4" / "adapter_model.safetensors") for run in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_checkpoint_answers_on_the_base_it_was_trained_on(
    tiny_llama_dir: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tiny_llama_dir, rows, tmp_path / "run", "--quant_method", "hqq", "--max_steps", "2")
    saved = json.loads((run / "checkpoint-2" / "sft_args.json").read_text())
    assert (saved["quant_method"], saved["quantization_bit"]) == ("hqq", 8)
    words = ["--ckpt_dir", str(run / "checkpoint-2"), "--val_dataset", f"{rows}#2", "--max_new_tokens", "4"]
    for change, shown in (("", "hqq 8 bit"), ("--quant_method bnb", "bnb 8 bit"), ("--quantization_bit 0", "")):
        capsys.readouterr()
        assert main(["infer", *words, *change.split()]) == 0
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("model:")]
        assert shown in line and (" bit" in line) == bool(shown)


def test_the_layers_that_were_quantized_are_found_from_anywhere(
    tiny_llama_dir: Path,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("layers.json").write_text('{"up_proj": {"nbits": 2, "axis": 1}, "q_proj": {"nbits": 4}}')
    words = ["--quant_method", "hqq", "--hqq_dynamic_config_path", "layers.json", "--max_steps", "1"]
    run = train(tiny_llama_dir, rows, tmp_path / "run", *words)
    monkeypatch.chdir("/")
    capsys.readouterr()
    assert main(["infer", "--ckpt_dir", str(run / "checkpoint-1"), "--val_dataset", f"{rows}#1"]) == 0
    assert "quantizing 4 of 14 linear layers" in capsys.readouterr().err


def test_a_merge_takes_the_full_weights(
    tiny_llama_dir: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tiny_llama_dir, rows, tmp_path / "run", "--quantization_bit", "4", "--max_steps", "2")
    words = ["--ckpt_dir", str(run / "checkpoint-2")]
    assert main(["merge-lora", *words]) == 0
    assert "trained on this base in 4 bit" in capsys.readouterr().err
    merged = run / "checkpoint-2-merged"
    assert json.loads((merged / "sft_args.json").read_text())["quantization_bit"] == 0
    assert "quantization_config" not in json.loads((merged / "config.json").read_text())
    rows_in = ["--val_dataset", f"{rows}#1", "--max_new_tokens", "4"]
    assert main(["infer", *words, *rows_in, "--merge_lora", "true"]) == 0
    assert "4 bit" not in capsys.readouterr().err.split("engine:")[0].split("model:")[-1]


def test_a_folder_that_is_quantized_trains_and_is_not_merged(
    tiny_llama_dir: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quant = QuantPlan(method="bnb", bits=4, compute_dtype="fp32")
    plan = ModelPlan(model_type="tiny", source=str(tiny_llama_dir), hub="local", dtype="fp32", quant=quant)
    stored = tmp_path / "stored"
    models.load_model(plan).save_pretrained(stored)
    models.load_tokenizer(plan).save_pretrained(stored)
    words = ["--max_steps", "4", "--logging_steps", "1", "--eval_steps", "1"]
    run = train(stored, rows, tmp_path / "run", *words)
    whole = train(tiny_llama_dir, rows, tmp_path / "whole", "--quantization_bit", "4", *words)
    assert losses(run) == losses(whole)
    capsys.readouterr()
    assert main(["merge-lora", "--ckpt_dir", str(run / "checkpoint-4")]) == 2
    given = capsys.readouterr().err
    assert "bitsandbytes 4 bit" in given and f"swift infer --ckpt_dir {run / 'checkpoint-4'}" in given
    assert main(["infer", "--ckpt_dir", str(run / "checkpoint-4"), "--val_dataset", f"{rows}#1"]) == 0


@pytest.mark.parametrize(
    "quant",
    [
        QuantPlan(method="bnb", bits=4, compute_dtype="fp32"),
        QuantPlan(method="bnb", bits=8),
        QuantPlan(method="hqq", bits=3),
    ],
    ids=str,
)
def test_the_estimate_knows_what_quantizing_saves(tiny_qwen2_dir: Path, quant: QuantPlan) -> None:
    plan = ModelPlan(model_type="tiny", source=str(tiny_qwen2_dir), hub="local", dtype="fp32")
    whole = models.load_model(plan).requires_grad_(False)
    small = models.load_model(replace(plan, quant=quant))
    saved = sum(p.nbytes for p in whole.parameters()) - sum(p.nbytes for p in small.parameters())
    scales = sum(p.numel() for m in whole.modules() if type(m) is nn.Linear for p in m.parameters()) * 8 / 64
    assert 0 <= saved - saved_by_quantizing(whole, quant) <= scales
