"""`--eval_after`: base and tuned model answer own questions when a training has ended, and cannot spoil it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swift.cli import main

QUESTIONS = "question,A,B,answer\n" + "".join(f"Which is {n}?,one {n},two {n},{'AB'[n % 2]}\n" for n in range(4))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with rows to train on, and a config of four questions."""
    rows = [{"query": f"Say {n}", "response": f"{n} it is"} for n in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "numbers_val.csv").write_text(QUESTIONS)
    (tmp_path / "config.json").write_text(json.dumps([{"name": "numbers", "pattern": "ceval", "dataset": "own"}]))
    return tmp_path


def train(work: Path, model: Path, *words: str) -> int:
    flags = ["sft", "--model_id_or_path", str(model), "--template_type", "qwen", "--dataset", str(work / "rows.jsonl")]
    flags += ["--output_dir", str(work / "out"), "--add_output_dir_suffix", "false", "--max_steps", "2"]
    flags += ["--learning_rate", "0.01", "--save_steps", "2", "--eval_after", str(work / "config.json")]
    return main([*flags, *words])


@pytest.mark.parametrize("sft_type", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_both_are_asked(tiny_llama_dir: Path, work: Path, sft_type: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(work, tiny_llama_dir, "--sft_type", sft_type) == 0
    shown = capsys.readouterr().out
    assert "before" in shown and "better" in shown
    lines = [json.loads(line) for line in (work / "out" / "logging.jsonl").read_text().splitlines()]
    (said,) = (line["eval_after"] for line in lines if "eval_after" in line)
    base, tuned = (records_of(Path(said[name])) for name in ("base", "tuned"))
    assert [record["id"] for record in base] == [record["id"] for record in tuned]
    assert [record["answer"]["letter"] for record in base] != [record["answer"]["letter"] for record in tuned]
    assert said["scores"][0]["n"] == 4
    output = ["--eval_output_dir", str(work / "own_eval"), "--custom_eval_config", str(work / "config.json")]
    assert main(["eval", "--model_id_or_path", str(tiny_llama_dir), "--template_type", "qwen", *output]) == 0
    (folder,) = (work / "own_eval" / "default").iterdir()
    for here, there in zip(records_of(folder), base, strict=True):
        assert here["prompt"] == there["prompt"]
        assert here["answer"]["letter"] == pytest.approx(there["answer"]["letter"], abs=1e-4)


def records_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]


def test_a_failure_costs_nothing(tiny_llama_dir: Path, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 6000  # longer than the context
    (work / "own" / "numbers_val.csv").write_text(f"question,A,B,answer\n{long},one,two,A\n")
    assert train(work, tiny_llama_dir, "--max_length", "512") == 1
    shown = capsys.readouterr().err
    assert (work / "out" / "checkpoint-2" / "adapter_model.safetensors").is_file()
    assert "the training is done" in shown and "swift eval --ckpt_dir" in shown and "Traceback" not in shown


def test_what_is_refused_before_the_training(
    tiny_llama_dir: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(work, tiny_llama_dir, "--save_strategy", "no") == 2
    assert "--eval_after" in capsys.readouterr().err
    (work / "own" / "numbers_val.csv").write_text(QUESTIONS + "Which?,one,two,C\n")
    assert train(work, tiny_llama_dir) == 2
    assert "numbers_val.csv:6" in capsys.readouterr().err
    (work / "config.json").write_text("{")
    assert train(work, tiny_llama_dir) == 2
    assert "--eval_after" in capsys.readouterr().err
    assert not (work / "out").exists()
