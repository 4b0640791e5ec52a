"""`--torch_compile`: the same run, by compiled norms and feed-forward blocks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from swift.cli import main

ROWS = [{"query": f"Say {i}", "response": "so " * (i % 7) + "it"} for i in range(24)]


def words(model: Path, rows: Path, run: Path) -> list[str]:
    """A run of three steps."""
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    flags = ["sft", "--model_id_or_path", str(model), "--dataset", str(rows), "--lora_dropout", "0"]
    flags += ["--add_output_dir_suffix", "false", "--max_steps", "3", "--logging_steps", "1", "--report_to", "none"]
    return [*flags, "--evaluation_strategy", "no", "--output_dir", str(run)]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiles C++")
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
def test_losses_and_gradients_are_those_of_the_plain_run(tiny_llama_dir: Path, tmp_path: Path) -> None:
    logged = {}
    for value in ("true", "false"):
        run = tmp_path / value
        assert main([*words(tiny_llama_dir, tmp_path / "rows.jsonl", run), "--torch_compile", value]) == 0
        lines = [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]
        logged[value] = [number for line in lines if "loss" in line for number in (line["loss"], line["grad_norm"])]
    assert len(logged["true"]) == 6
    assert logged["true"] == pytest.approx(logged["false"], rel=1e-4)


@pytest.mark.slow
def test_without_a_compiler_it_says_so_before_the_first_step(tiny_llama_dir: Path, tmp_path: Path) -> None:
    flags = [*words(tiny_llama_dir, tmp_path / "rows.jsonl", tmp_path / "run"), "--torch_compile", "true"]
    nothing = {"PATH": str(tmp_path), "CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    result = subprocess.run(
        [sys.executable, "-m", "swift", *flags], capture_output=True, text=True, env=os.environ | nothing
    )
    assert result.returncode == 2
    assert "finds no compiler that works" in result.stderr
    assert not list((tmp_path / "run").glob("checkpoint-*"))
