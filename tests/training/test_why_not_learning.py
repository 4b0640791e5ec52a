"""Named causes of runs that do not learn: each fault by its name, and no alarm in runs that are well."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from swift.cli import main
from swift.data.dataset import ListDataset
from swift.training.callbacks.curve_watch import WatchedCurves
from swift.training.callbacks.weight_watch import WatchedWeights
from swift.training.odd_rows import OF_LAZY_ROWS, in_rows
from swift.training.why_not_learning import FILE, Notebook

VOCABULARY = 1000
CHANCE = math.log(VOCABULARY)


def example(question: int, answer: int) -> dict[str, Any]:
    return {"input_ids": [1, question, 2, answer, 3], "labels": [-100, -100, -100, answer, 3]}


def pair(number: int) -> dict[str, Any]:
    sides = {"chosen_": example(number, 50 + number), "rejected_": example(number, 90)}
    return {f"{prefix}{name}": value for prefix, side in sides.items() for name, value in side.items()}


def causes_of(folder: Path, lines: list[dict[str, float]], last: int = 1000) -> list[str]:
    """The causes that log lines of these steps, one every fifth, lead to."""
    watch = WatchedCurves(Notebook(folder), VOCABULARY)
    arguments = TrainingArguments(output_dir=str(folder), report_to=[], use_cpu=True, learning_rate=1e-4)
    for number, line in enumerate(lines):
        state = TrainerState(global_step=max(1, 5 * number), max_steps=last)
        watch.on_log(arguments, state, TrainerControl(), logs=line)
    file = folder / FILE
    return [json.loads(line)["cause"] for line in file.read_text().splitlines()] if file.is_file() else []


FAULTY: dict[str, tuple[list[dict[str, float]], str]] = {
    "schedule": ([{"loss": 2.0, "learning_rate": 0.0}] * 2, "a learning rate of 0"),
    "tokens": ([{"loss": CHANCE, "acc": 0.0, "learning_rate": 1e-4}] * 12, "a loss at the level of chance"),
    "tokens, after 25 steps": (
        [{"loss": CHANCE, "acc": 0.0, "learning_rate": 1e-4}] * 6,
        "a loss at the level of chance",
    ),
    "worse than guessing": ([{"loss": CHANCE + 2, "acc": 0.0}] * 2, "a loss worse than guessing"),
    "what was known is lost": (
        [{"loss": loss, "acc": 0.0} for loss in (3.0, 8.0, 7.0, 7.5)],
        "a loss that grows",
    ),
    "far beyond guessing": ([{"loss": loss, "acc": 0.0} for loss in (CHANCE, 12.0, 30.0)], "a loss that grows"),
    "higher and higher": ([{"loss": loss, "acc": 0.0} for loss in (1.0, 1.2, 3.0, 4.0, 4.5)], "a loss that grows"),
    "pairs that part": (
        [{"loss": loss, "rewards/margins": -2.0} for loss in (0.69, 1.5, 2.0, 2.5, 3.0)],
        "a loss that grows",
    ),
    "pairs": (
        [{"loss": math.log(2), "rewards/margins": 0.0, "learning_rate": 1e-4}] * 12,
        "a loss at the level of chance",
    ),
    "rewards": ([{"loss": 0.1, "frac_reward_zero_std": 1.0}] * 2, "rewards without variance"),
}
HEALTHY: dict[str, list[dict[str, float]]] = {
    "warm-up": [{"loss": 2.0, "learning_rate": 1e-5 * step} for step in range(4)],
    "cosine": [{"loss": 2.0, "learning_rate": 1e-5 * step} for step in (3, 2, 1, 0)],
    "small model at its start": [{"loss": CHANCE, "acc": 0.0}] * 2,
    "chance while it warms up": [{"loss": CHANCE, "acc": 0.0, "learning_rate": 1e-6 * step} for step in range(2)]
    + [{"loss": CHANCE, "acc": 0.0, "learning_rate": 1e-4}],
    "a regularizer beside the rows": [{"loss": CHANCE + 2, "regularizer": 2.0, "acc": 0.0}] * 2,
    "rows that differ": [{"loss": loss, "acc": 0.0} for loss in (0.2, 0.3, 2.0, 4.0, 0.6, 3.0, 2.2, 2.9, 0.9)],
    "single pairs": [{"loss": loss, "rewards/margins": 0.1} for loss in (0.69, 1.2, 0.4, 1.6, 0.3, 1.1, 1.3)],
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


def named(train: list[dict[str, Any]], val: list[dict[str, Any]] | None = None, **more: Any) -> list[str]:
    rows, own = ListDataset(train), None if val is None else ListDataset(val)
    return [cause.cause for cause in in_rows(rows, own, text, **more)]


def text(tokens: Sequence[int]) -> str:
    return "".join({1: " ", 2: "  "}.get(token, f"<{token}>") for token in tokens)


VARIED = [example(10 + number, 50 + number) for number in range(20)]
INSIDE = ["evaluation rows inside the training rows"]


def test_equal_answers() -> None:
    same = [example(10 + number, 50) for number in range(20)]
    assert named(VARIED) == [] and named(same[:4]) == []
    assert named(same) == ["identical answers"] == named([pair(3)] * 20)


def test_a_loss_scale_without_effect() -> None:
    ones = [{**row, "loss_scale": [0.0, 0.0, 0.0, 1.0, 1.0]} for row in VARIED]
    assert named(ones) == ["a loss scale without weights"]
    assert named([*ones[1:], {**ones[0], "loss_scale": [0.0, 0.0, 0.0, 2.0, 1.0]}]) == []


def test_validation_rows_that_are_trained() -> None:
    assert named(VARIED, [example(10, 99)]) == []
    assert named(VARIED, [example(10, 99), VARIED[3]]) == INSIDE
    spaced = {"input_ids": [2, 13, 1, 53, 3], "labels": [-100, -100, -100, 53, 3]}
    assert named(VARIED, [spaced]) == INSIDE and named(VARIED, [spaced], effort=OF_LAZY_ROWS) == []
    pairs = [pair(number) for number in range(20)]
    assert named(pairs, [pair(30)]) == [] and named(pairs, [pair(3)], effort=OF_LAZY_ROWS) == INSIDE
    prompts = [{"input_ids": [1, number]} for number in range(20)]
    assert named(prompts, [{"input_ids": [1, 40]}]) == [] and named(prompts, [prompts[5]]) == INSIDE


def test_questions_that_are_cut_off() -> None:
    whole = [{"input_ids": [7, number, 3], "labels": [-100, number, 3]} for number in range(20)]
    assert named([*whole, *VARIED[:8]]) == ["answers without a question"]
    assert named([*whole, *VARIED[:8]], plain_text=True) == [] == named([*whole[:8], *VARIED])


def test_questions_that_are_the_same() -> None:
    def asked(question: int, answer: int, size: int = 1, **more: Any) -> dict[str, Any]:
        told = [answer] * size
        return {"input_ids": [7, question, *told, 3], "labels": [-100, -100, *told, 3], **more}

    several = ["one question with several answers"]
    assert named([asked(1, number) for number in range(20)]) == ["identical questions"]
    assert named([asked(1, number) for number in range(20)], effort=OF_LAZY_ROWS) == ["identical questions"]
    assert named([asked(number // 2, number) for number in range(20)]) == several
    assert named([asked(number // 2, number, 40) for number in range(20)]) == []  # both may be good
    assert named([asked(1, number, 40) for number in range(20)]) == ["identical questions"]
    assert named([asked(number // 2, number // 2) for number in range(20)]) == []  # rows that are there twice
    assert named([asked(min(number, 12), number) for number in range(20)]) == several
    assert named([asked(min(number, 13), number) for number in range(20)]) == []  # seven may be chance
    assert named([asked(min(number, 92), number) for number in range(100)]) == []  # as may eight of a hundred
    assert named([asked(1, number, label=True) for number in range(20)]) == []  # good and bad answers of KTO
    plain = [{"input_ids": [7, number, 3], "labels": [-100, number, 3]} for number in range(20)]
    assert named(plain, plain_text=True) == [] and named([asked(1, 5), *plain[:8], *VARIED]) == []


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


class _Optimizer(torch.optim.AdamW):
    """Says what accelerate's wrapper says."""

    step_was_skipped = False


LOST, SMALL, DECAY = (
    "updates that are lost in rounding",
    "steps too small to learn",
    "a weight decay that shrinks the weights",
)


@pytest.mark.parametrize(
    ("rate", "decay", "dtype", "told"),
    [
        (1e-12, 0.1, torch.bfloat16, LOST),
        (1e-12, 0.1, torch.float32, SMALL),
        (1e-7, 0.1, torch.float32, SMALL),
        (1e-3, 50.0, torch.float32, DECAY),
        (1e-3, 0.1, torch.float32, None),
        (1e-5, 0.1, torch.float32, None),
    ],
)
def test_weights_that_do_not_move_as_they_should(
    rate: float, decay: float, dtype: torch.dtype, told: str | None, tmp_path: Path
) -> None:
    model = torch.nn.Linear(8, 8).to(dtype)
    optimizer = _Optimizer(model.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True, learning_rate=rate)
    watch, control = WatchedWeights(Notebook(tmp_path)), TrainerControl()
    watch.on_train_begin(arguments, TrainerState(), control, model=model)
    for step in range(6):
        model(torch.ones(1, 8, dtype=dtype)).square().sum().backward()
        optimizer.step()
        state = TrainerState(global_step=step, max_steps=40)
        watch.on_optimizer_step(arguments, state, control, optimizer=optimizer, lr_scheduler=schedule)
        optimizer.zero_grad()
    causes = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()] if told else []
    assert [(cause["cause"], cause["step"]) for cause in causes] == ([(told, 5)] if told else [])
    assert (tmp_path / FILE).is_file() == bool(told)


@pytest.mark.parametrize(("warmup", "told"), [(0, False), (10, False), (11, True)])
def test_a_warm_up_that_does_not_end(warmup: int, told: bool, tmp_path: Path) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True, learning_rate=1e-4)
    watch = WatchedCurves(Notebook(tmp_path), VOCABULARY, warmup)
    watch.on_train_begin(arguments, TrainerState(max_steps=10), TrainerControl())
    assert (tmp_path / FILE).is_file() == told
