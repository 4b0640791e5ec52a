"""`swift check` from the command line: what it refuses, what it prints and writes, and how it exits."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tests.commands.test_multimodal import noise
from tests.fixtures.tiny_multimodal import write_qwen2_vl

from swift.checking.runs import unweighted
from swift.checking.subject import planned, subject_of
from swift.cli import main
from swift.training.trainer import SwiftTrainer


@pytest.fixture
def words(tiny_llama_dir: Path, tmp_path: Path) -> list[str]:
    """`swift check` on twelve rows."""
    rows = [{"query": f"Say {i}", "response": "so " * (i % 7) + f"{i}"} for i in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["check", "--model_id_or_path", str(tiny_llama_dir), "--dataset", str(tmp_path / "rows.jsonl")]
    return [*words, "--output_dir", str(tmp_path / "output")]


def test_bad_input_ends_before_anything_is_loaded(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "two.jsonl").write_text('{"query": "a", "response": "b"}\n{"query": "c", "response": "d"}\n')
    (tmp_path / "file").touch()
    cases = {
        "a check takes 4 different rows, and 2 can be used": ["--dataset", str(tmp_path / "two.jsonl")],
        "no data set": ["--dataset", str(tmp_path / "none.jsonl")],
        "--lora_rnk": ["--lora_rnk", "8"],
        "is a file, not a folder": ["--result_path", str(tmp_path / "file" / "check.json")],
        "expected one argument": ["--result_path"],
    }
    for message, more in cases.items():
        assert main([*words, *more]) == 2
        given = capsys.readouterr().err
        assert "error:" in given and ("none.jsonl" if message == "no data set" else message) in given
    assert main(["check", "--help"]) == 0
    assert "--result_path" in capsys.readouterr().out
    assert "swift check" in (main(["--help"]), capsys.readouterr().out)[1]
    assert main(["chekc"]) == 2
    assert "`swift check`" in capsys.readouterr().err


def test_what_no_run_can_begin_with_is_refused_once(
    words: list[str], tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(tiny_llama_dir, tmp_path / "broken")
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][0] = math.nan
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    assert main([*words, "--model_id_or_path", str(model)]) == 1, "as a run ends"
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("model.norm.weight") == 1
    assert not (tmp_path / "output").exists()


@pytest.mark.slow
def test_a_line_for_each_check_and_json(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--result_path", str(tmp_path / "verdict.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11 and lines[-1].startswith("ok: 10 passed in ")
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert verdict["passed"] and [one["status"] for one in verdict["checks"]] == ["passed"] * 10
    assert list((tmp_path / "output").iterdir()) == [], "what the runs wrote is gone"


@pytest.mark.slow
@pytest.mark.parametrize("sft_type", ["full", "ia3", "adapter"])
def test_every_kind_of_tuner(sft_type: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--sft_type", sft_type]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("FAILED")] == []
    assert ("skipped" in lines[8]) == (sft_type in ("full", "adapter"))


@pytest.mark.slow
def test_exit_code_1_where_a_check_fails(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = SwiftTrainer.compute_loss

    def mean_of_means(self: Any, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None):
        return whole(self, model, inputs, num_items_in_batch=len(inputs["predicted_at"]) * self._passes_of_step)

    monkeypatch.setattr(SwiftTrainer, "compute_loss", mean_of_means)
    assert main([*words, "--result_path", str(tmp_path / "verdict.json")]) == 1
    assert "FAILED  batch x accumulation" in capsys.readouterr().out
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert not verdict["passed"] and verdict["checks"][0]["status"] == "failed"


def write_pictures(folder: Path) -> Path:
    """Rows with an image, and one without."""
    rows: list[dict[str, object]] = [
        {"query": f"Q{number}?", "response": "a", "images": [str(noise(folder / f"{number}.png", 40 + 9 * number, 70))]}
        for number in range(5)
    ]
    path = folder / "pictures.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"query": "Text", "response": "only"}]))
    return path


def words_for_pictures(folder: Path, tokenizer: Path) -> list[str]:
    model = write_qwen2_vl(folder / "tiny", tokenizer)
    words = ["--model_type", "qwen2-vl-2b-instruct", "--model_id_or_path", str(model)]
    return [*words, "--dataset", str(write_pictures(folder))]


def test_rows_are_compared_with_their_images(tmp_path: Path, smollm2_tokenizer_dir: Path) -> None:
    subject = subject_of(planned(words_for_pictures(tmp_path, smollm2_tokenizer_dir)))
    assert sum("media" in unweighted(subject.rows[number]) for number in range(len(subject.rows))) == 5


@pytest.mark.slow
def test_rows_with_images_pass_all_checks(
    tmp_path: Path, smollm2_tokenizer_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *words_for_pictures(tmp_path, smollm2_tokenizer_dir)]) == 0
    assert "ok: 9 passed" in capsys.readouterr().out
