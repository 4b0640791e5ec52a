"""Named causes of runs that do not learn: each fault by its name, and no alarm in runs that are well."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from swift.cli import main
from swift.training.why_not_learning import FILE, Notebook, WatchedCurves, in_rows

VOCABULARY = 1000
CHANCE = math.log(VOCABULARY)


def example(question: int, answer: int) -> dict[str, Any]:
    return {"input_ids": [1, question, 2, answer, 3], "labels": [-100, -100, -100, answer, 3]}


def causes_of(folder: Path, lines: list[dict[str, float]], last: int = 1000) -> list[str]:
    """The causes that log lines of these steps, one every fifth, lead to."""
    watch = WatchedCurves(Notebook(folder), VOCABULARY)
    arguments = TrainingArguments(output_dir=str(folder), report_to=[], use_cpu=True)
    for number, line in enumerate(lines):
        state = TrainerState(global_step=max(1, 5 * number), max_steps=last)
        watch.on_log(arguments, state, TrainerControl(), logs=line)
    file = folder / FILE
    return [json.loads(line)["cause"] for line in file.read_text().splitlines()] if file.is_file() else []


FAULTY: dict[str, tuple[list[dict[str, float]], str]] = {
    "schedule": ([{"loss": 2.0, "learning_rate": 0.0}] * 2, "a learning rate of 0"),
    "tokens": ([{"loss": CHANCE, "acc": 0.0, "learning_rate": 1e-4}] * 12, "a loss at the level of chance"),
    "worse than guessing": ([{"loss": CHANCE + 2, "acc": 0.0}] * 12, "a loss at the level of chance"),
    "pairs": ([{"loss": math.log(2), "rewards/margins": 0.0}] * 12, "a loss at the level of chance"),
    "rewards": ([{"loss": 0.1, "frac_reward_zero_std": 1.0}] * 2, "rewards without variance"),
}
HEALTHY: dict[str, list[dict[str, float]]] = {
    "warm-up": [{"loss": 2.0, "learning_rate": 1e-5 * step} for step in range(4)],
    "cosine": [{"loss": 2.0, "learning_rate": 1e-5 * step} for step in (3, 2, 1, 0)],
    "small model at its start": [{"loss": CHANCE, "acc": 0.0}] * 9,
    "slow": [{"loss": CHANCE - 0.01 * step, "acc": 0.0} for step in range(40)],
    "pairs": [{"loss": 0.69 - 0.01 * step, "rewards/margins": 0.1} for step in range(20)],
    "one flat roll-out": [{"loss": 0.1, "frac_reward_zero_std": share} for share in (1.0, 0.5, 1.0, 0.8)],
    "a reward model": [{"loss": 12.0 + step} for step in range(20)],
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_is_named_once(name: str, tmp_path: Path) -> None:
    lines, cause = FAULTY[name]
    assert causes_of(tmp_path, lines) == [cause]


@pytest.mark.parametrize("name", HEALTHY)
def test_no_alarm(name: str, tmp_path: Path) -> None:
    assert causes_of(tmp_path, HEALTHY[name], last=15 if name == "cosine" else 1000) == []


def test_rows() -> None:
    varied = [example(10 + number, 50 + number) for number in range(20)]
    same = [example(10 + number, 50) for number in range(20)]
    lengths = [5] * 20

    def named(*arguments: Any) -> list[str]:
        return [cause.cause for cause in in_rows(*arguments)]

    assert named(varied, [example(10, 99)], lengths) == []
    assert named(same, None, lengths) == ["identical answers"]
    assert named(same[:4], None, lengths[:4]) == []
    assert named(varied, [example(10, 99), varied[3]], lengths) == ["evaluation rows inside the training rows"]
    assert named([{"chosen_input_ids": [1]}], None, [1]) == []


def test_from_the_command_line(tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"query": f"Say {n}", "response": "no"}) + "\n" for n in range(12)))
    common = (
        f"--model_id_or_path {tiny_llama_dir} --dataset {rows} --val_dataset {rows} --output_dir {tmp_path / 'run'}"
    )
    common += " --add_output_dir_suffix false --max_steps 3 --logging_steps 1 --learning_rate 0 --batch_size 4"
    common += " --gradient_accumulation_steps 1 --report_to none --save_strategy no --evaluation_strategy no"
    assert main(["sft", *common.split()]) == 0
    causes = [json.loads(line)["cause"] for line in (tmp_path / "run" / FILE).read_text().splitlines()]
    expected = ["identical answers", "evaluation rows inside the training rows", "a learning rate of 0"]
    assert causes == expected
    told = capsys.readouterr().err
    assert all(told.count(f"why it may not learn: {cause}") == 1 for cause in expected)
