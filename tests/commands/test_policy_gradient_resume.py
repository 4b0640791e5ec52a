"""A run on its own answers that was killed goes on bit for bit: answers, weights and losses are a whole run's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.slow
PLUGIN = "def even(token_ids):\n    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in token_ids]\n"


@pytest.fixture
def flags(tiny_llama_dir: Path, tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Of each command: a reward, and roll-outs that several steps share."""
    reward = shutil.copytree(tiny_llama_dir, tmp_path / "reward")
    weight = torch.randn(1, 64, generator=torch.Generator().manual_seed(1))
    save_file(
        {"v_head.summary.weight": weight, "v_head.summary.bias": torch.zeros(1)}, reward / "value_head.safetensors"
    )
    (tmp_path / "plugin.py").write_text(PLUGIN)
    return {
        "ppo": {"reward_model_id_or_path": reward, "num_ppo_epochs": 3, "num_mini_batches": 2},
        "grpo": {
            "reward_funcs": "even",
            "external_plugins": tmp_path / "plugin.py",
            "dynamic_sample": "true",
            "num_generations": 4,
            "num_iterations": 3,
            "num_mini_batches": 2,
        },
    }


def words(command: str, run: Path, model: Path, rows: Path, **values: Any) -> list[str]:
    given = {
        "model_id_or_path": model,
        "dataset": rows,
        "output_dir": run,
        "add_output_dir_suffix": "false",
        "max_steps": 40,
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_new_tokens": 8,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_steps": 20,
        "save_total_limit": -1,
        "report_to": "none",
        "no_cache": "true",
        **values,
    }
    return [command, *(word for name, value in given.items() for word in (f"--{name}", str(value)))]


def start(given: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "swift", *given],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
        )


def losses(run: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]
    return {line["global_step/max_steps"]: (line["loss"], line["grad_norm"]) for line in lines if "loss" in line}


@pytest.mark.parametrize("command", ["ppo", "grpo"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_40_steps_are_20_and_a_kill_and_20(
    command: str, tuning: str, tiny_llama_dir: Path, flags: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    rows = tmp_path / "prompts.jsonl"
    rows.write_text("".join(json.dumps({"query": f"Say word {number}"}) + "\n" for number in range(12)))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    common = {**flags[command], "sft_type": tuning}
    assert start(words(command, whole, tiny_llama_dir, rows, **common), tmp_path / "log").wait() == 0
    child = start(words(command, killed, tiny_llama_dir, rows, **common), tmp_path / "log")
    record = killed / "rollouts.jsonl"
    while child.poll() is None and not (
        (killed / "checkpoint-20").is_dir() and record.read_bytes().count(b"\n") > 8 * 4
    ):
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert record.read_bytes().count(b"\n") < (whole / "rollouts.jsonl").read_bytes().count(b"\n")
    go_on = words(command, killed, tiny_llama_dir, rows, **common)
    assert start([*go_on, "--resume_from_checkpoint", str(killed / "checkpoint-20")], tmp_path / "log").wait() == 0
    assert record.read_text() == (whole / "rollouts.jsonl").read_text()
    assert losses(killed) == losses(whole)
    for path in (whole / "checkpoint-40").glob("*.safetensors"):
        one, other = load_file(path), load_file(killed / "checkpoint-40" / path.name)
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
