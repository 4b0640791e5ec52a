"""`swift merge-lora` and `swift export --merge_lora true` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swift import models, tuners
from swift.cli import main
from swift.plan.model import ModelPlan
from swift.plan.tuner import TunerPlan
from swift.tuners.adapter_saving import Card

LORA = {"r": 4, "lora_alpha": 32, "lora_dropout": 0.0, "init_lora_weights": False}


def adapter(base: Path, folder: Path, *, saved_args: bool) -> Path:
    plan = ModelPlan(model_type="tiny-llama", source=str(base), hub="local", dtype="fp32")
    tuner = TunerPlan(sft_type="lora", settings=LORA)
    folder.mkdir()
    tuned = tuners.attach(models.load_model(plan), tuner)
    if saved_args:
        tuners.save(tuned, folder, Card(model=plan, tuner=tuner, base=models.identity(base)))
        args = {"model_type": "tiny-llama", "model_id_or_path": str(base), "sft_type": "lora", "dtype": "fp32"}
        (folder / "sft_args.json").write_text(json.dumps(args))
    else:
        tuners.save(tuned, folder)
    return folder


@pytest.mark.parametrize("words", [["merge-lora"], ["merge_lora"], ["export", "--merge_lora", "true"]])
def test_merge(words: list[str], tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = adapter(tiny_llama_dir, tmp_path / "checkpoint-1", saved_args=True)
    assert main([*words, "--ckpt_dir", str(checkpoint)]) == 0
    merged = tmp_path / "checkpoint-1-merged"
    assert (merged / "merge_report.json").is_file()
    assert f"swift infer --ckpt_dir {merged}" in capsys.readouterr().err


def test_a_plain_peft_adapter(tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = adapter(tiny_llama_dir, tmp_path / "lora", saved_args=False)
    assert main(["merge-lora", "--ckpt_dir", str(checkpoint)]) == 0
    assert "does not record the weights of its base" in capsys.readouterr().err
    assert main(["merge-lora", "--ckpt_dir", str(tmp_path / "lora-merged")]) == 2
    assert "has no adapter to merge" in capsys.readouterr().err


def test_a_damaged_checkpoint(tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = adapter(tiny_llama_dir, tmp_path / "checkpoint-1", saved_args=True)
    path = checkpoint / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert main(["merge-lora", "--ckpt_dir", str(checkpoint)]) == 2
    assert "cut short" in capsys.readouterr().err


def test_without_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge-lora"]) == 2
    assert "--ckpt_dir" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "reason"), [([], "nothing to do"), (["--to_hf", "true"], "the Megatron backend")])
def test_export_says_what_it_cannot_do(
    words: list[str], reason: str, tiny_llama_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--model_id_or_path", str(tiny_llama_dir), *words]) == 2
    assert reason in capsys.readouterr().err
