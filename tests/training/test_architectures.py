"""One step on tiny models of many decoder classes: the loss is the model's own, and the result answers and merges."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from swift.cli import main
from training.architectures import decoders, save_small

ROWS = [
    {"query": "What is one plus one?", "response": "Two."},
    {"query": "Name a city.", "response": "Paris is a city in France."},
]
CLASSES = tomllib.loads(Path(__file__).with_name("decoder_classes.toml").read_text())


def own_loss(folder: Path, rows: list[dict[str, str]]) -> float:
    """What transformers' own model says for the rows, one by one, weighted by their trained tokens."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    total, count = 0.0, 0
    for row in rows:
        prompt = tokenizer.apply_chat_template([{"role": "user", "content": row["query"]}], tokenize=False)
        prompt += "<|im_start|>assistant\n"
        start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        whole = f"{prompt}{row['response']}<|im_end|>"
        ids = torch.tensor([tokenizer(whole, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0, start - 1 : -1].float()
        total += cross_entropy(logits, ids[0, start:], reduction="sum").item()
        count += ids.shape[1] - start
    return total / count


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLASSES["holds"])
def test_one_step_and_what_follows(
    kind: str, smollm2_tokenizer_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = save_small(kind, tmp_path / "model", smollm2_tokenizer_dir)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    run = tmp_path / "run"
    words = ["--model_id_or_path", str(model), "--dataset", str(rows), "--dataset_test_ratio", "0", "--dtype", "fp32"]
    words += ["--batch_size", "2", "--max_steps", "1", "--gradient_accumulation_steps", "1", "--report_to", "none"]
    words += ["--target_modules", "ALL", "--lora_dropout", "0", "--add_output_dir_suffix", "false"]
    assert main(["sft", *words, "--output_dir", str(run), "--no_cache", "true"]) == 0
    assert "activations are kept" in capfd.readouterr().err  # its memory can be estimated
    logged = [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]
    assert next(line["loss"] for line in logged if "loss" in line) == pytest.approx(own_loss(model, ROWS), abs=1e-4)
    checkpoint = str(run / "checkpoint-1")
    answers = ["--val_dataset", str(rows), "--max_new_tokens", "3", "--temperature", "0"]
    assert main(["infer", "--ckpt_dir", checkpoint, *answers]) == 0
    assert main(["merge-lora", "--ckpt_dir", checkpoint]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["deepseek_v3", "laguna"])
def test_a_mixture_that_was_interrupted_ends_as_the_whole_run(
    kind: str, smollm2_tokenizer_dir: Path, tmp_path: Path
) -> None:
    """Adapters on dense and shared layers beside fused experts go on where they stood."""
    model = save_small(kind, tmp_path / "model", smollm2_tokenizer_dir)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS * 4))
    words = ["sft", "--model_id_or_path", str(model), "--dataset", str(rows), "--dataset_test_ratio", "0"]
    words += [
        "--dtype",
        "fp32",
        "--target_modules",
        "ALL",
        "--max_steps",
        "4",
        "--save_steps",
        "2",
        "--no_cache",
        "true",
    ]
    words += ["--gradient_accumulation_steps", "1", "--save_total_limit", "5", "--add_output_dir_suffix", "false"]
    words += ["--no_cache", "true"]
    whole, rest = tmp_path / "whole", tmp_path / "rest"
    assert main([*words, "--output_dir", str(whole)]) == 0
    assert main([*words, "--output_dir", str(rest), "--resume_from_checkpoint", str(whole / "checkpoint-2")]) == 0
    ends = [(folder / "checkpoint-4" / "adapter_model.safetensors").read_bytes() for folder in (whole, rest)]
    assert ends[0] == ends[1]


REFUSED = {**dict.fromkeys(CLASSES["reads_ahead"], "reads ahead"), **CLASSES["refused"]}
QUICK = ("bert", "xlm")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in QUICK else pytest.mark.slow) for kind in sorted(REFUSED)]
)
def test_what_cannot_be_trained_is_refused(
    kind: str, smollm2_tokenizer_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loss of a model that reads ahead would be that of copying the answer."""
    model = save_small(kind, tmp_path / "model", smollm2_tokenizer_dir)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = ["sft", "--model_id_or_path", str(model), "--dataset", str(rows), "--dataset_test_ratio", "0"]
    assert main([*words, "--target_modules", "ALL", "--dtype", "fp32", "--output_dir", str(tmp_path / "run")]) == 2
    assert REFUSED[kind] in capsys.readouterr().err


def test_every_decoder_class_of_transformers_is_listed() -> None:
    lists = (CLASSES["holds"], CLASSES["reads_ahead"], CLASSES["refused"], CLASSES["not_built"])
    listed = [kind for kinds in lists for kind in kinds]
    assert sorted(listed) == decoders()
