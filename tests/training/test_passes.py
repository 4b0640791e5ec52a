"""The rows of an optimizer step in few forward passes: where steps are cut, and that no number depends on it."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from swift.cli import main
from swift.plan.tuner import TunerPlan
from swift.training.loop import train
from swift.training.objectives import Batch, Sums
from swift.training.objectives.sft import SftObjective
from swift.training.passes import lay, passes_needed
from training.kit import FULL, LORA, Rows, tiny_plan, tiny_run, weights

DROPOUT = replace(LORA, settings={**LORA.settings, "lora_dropout": 0.3})
NUMBERS = ("step", "epoch", "loss", "acc", "grad_norm", "eval_loss", "eval_acc", "num_input_tokens_seen")


def partitions(sizes: list[int], count: int) -> Iterator[list[int]]:
    """The sums of every way to put `sizes` into at most `count` passes."""
    if not sizes:
        yield []
        return
    first, *rest = sizes
    for sums in partitions(rest, count):
        for number in range(len(sums)):
            yield [*sums[:number], sums[number] + first, *sums[number + 1 :]]
        if len(sums) < count:
            yield [*sums, first]


def test_the_rows_of_a_step_are_laid_into_few_and_even_passes(tmp_path: Path) -> None:
    chance = random.Random(1)
    for _ in range(200):
        sizes = [chance.randint(1, 30) for _ in range(chance.randint(1, 7))]
        size = chance.randint(1, 3)
        micro_batches = -(-len(sizes) // size)
        limit = chance.randint(max(sizes), size * max(sizes))
        plan = tiny_plan(tmp_path, pass_tokens=limit)
        count = passes_needed(sizes, plan, micro_batches)
        passes = lay(sizes, count, plan)
        assert sorted(itertools.chain(*passes)) == list(range(len(sizes)))
        assert len(passes) == count and all(passes) and passes == sorted(map(sorted, passes))
        sums = [sum(sizes[row] for row in rows) for rows in passes]
        fewest = min(len(way) for way in partitions(sizes, len(sizes)) if max(way) <= limit)
        assert count <= min(micro_batches, 11 / 9 * fewest + 1)
        assert max(sums) <= (limit if count < micro_batches or fewest == count else size * max(sizes))
        best = min(max(way) for way in partitions(sizes, count) if len(way) == count)
        assert max(sums) <= 4 / 3 * best or max(sums) <= limit


def test_rows_of_a_step_need_not_be_neighbours(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, pass_tokens=100)
    sizes = [60, 60, 60, 40, 40, 40]
    assert passes_needed(sizes, plan, 6) == 3  # 5 of neighbours
    passes = lay(sizes, 3, plan)
    assert [sum(sizes[row] for row in rows) for rows in passes] == [100, 100, 100]
    assert [rows[0] for rows in passes] == [0, 1, 2]
    assert lay(sizes, 9, plan) == [[row] for row in range(6)]  # others may have more rows


class Counting(SftObjective):
    """Notes the rows of each pass."""

    seen: list[list[int]]

    def sums(self, model: torch.nn.Module, batch: Batch) -> Sums:
        """The sums, with the rows noted."""
        self.seen.append(batch["rows"])
        return super().sums(model, batch)


def trained(folder: Path, **options: Any) -> tuple[list[list[float]], torch.Tensor, list[list[int]]]:
    """What a run logs, its weights and the rows of its passes."""
    Counting.seen = []
    run = tiny_run(folder, objective=Counting, **options)
    state = train(run).state
    events = [[event[name] for name in NUMBERS if name in event] for event in state.log_history if "loss" in event]
    events += [
        [event[name] for name in NUMBERS if name in event] for event in state.log_history if "eval_loss" in event
    ]
    return events, weights(run.model), Counting.seen


@pytest.mark.parametrize("tuner", [LORA, FULL], ids=["lora", "full"])
def test_no_number_depends_on_the_passes(tuner: TunerPlan, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "tuner": tuner,
        "train": Rows(27, weighted=True),
        "val": Rows(7, seed=3),
        "batch_size": 2,
        "accumulation": 5,
        "max_steps": 7,
        "acc_steps": 2,
        "evaluation_strategy": "steps",
        "eval_steps": 3,
        "include_num_input_tokens_seen": True,
        "learning_rate": 0.05,
    }
    events, ends, micro_batches = trained(tmp_path / "given", **options)

    def of_steps(passes: list[list[int]]) -> list[list[int]]:
        rows = itertools.chain(*passes)
        steps = [sorted(itertools.islice(rows, count)) for count in (10, 10, 7, 7, 10, 10, 7, 7, 10, 7)]
        assert not list(rows)
        return steps

    for tokens in (1, 80, 10**6):
        other, others, passes = trained(tmp_path / f"{tokens}", **options, pass_tokens=tokens)
        assert len(passes) < len(micro_batches) or tokens == 1
        assert of_steps(passes) == of_steps(micro_batches)
        assert len(other) == len(events) == 7 + 3
        for mine, theirs in zip(other, events, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-6, abs=1e-7)
        torch.testing.assert_close(others, ends, rtol=1e-5, atol=1e-6)


def test_a_resumed_run_has_the_passes_of_the_whole(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "tuner": DROPOUT,
        "train": Rows(27),
        "batch_size": 1,
        "accumulation": 8,
        "max_steps": 9,
        "save_strategy": "steps",
        "save_steps": 3,
        "save_total_limit": None,
        "pass_tokens": 60,
    }
    events, whole, passes = trained(tmp_path / "whole", **options)
    again, resumed, rest = trained(tmp_path / "again", resume=tmp_path / "whole" / "checkpoint-3", **options)
    assert again == events
    assert torch.equal(resumed, whole)
    assert rest == passes[-len(rest) :]


def sft_args(run: Path) -> dict[str, Any]:
    """The arguments that a run has written."""
    return json.loads((run / "sft_args.json").read_text())


def logged(run: Path) -> list[list[float]]:
    """The numbers that a run has logged."""
    lines = [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]
    return [[value for name, value in line.items() if name in NUMBERS] for line in lines if "loss" in line]


@pytest.mark.parametrize("streaming", [False, True])
def test_the_decision_is_said_written_and_kept(
    streaming: bool, tiny_llama_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"query": f"Say {i}", "response": "so " * (i % 7) + "it"}) + "\n" for i in range(40))
    )
    flags = ["sft", "--model_id_or_path", str(tiny_llama_dir), "--dataset", str(rows), "--lora_dropout", "0"]
    flags += ["--add_output_dir_suffix", "false", "--max_steps", "2", "--logging_steps", "1", "--report_to", "none"]
    flags += ["--max_length", "128", "--streaming", str(streaming).lower(), "--evaluation_strategy", "no"]
    assert main([*flags, "--output_dir", str(tmp_path / "auto"), "--micro_batching", "auto"]) == 0
    tokens = sft_args(tmp_path / "auto")["micro_batching"]
    said = capfd.readouterr()
    assert f"of up to {int(tokens):,} tokens" in said.out + said.err
    assert (int(tokens) == 1024) == streaming  # beside 16 of the longest rows
    assert main([*flags, "--output_dir", str(tmp_path / "said"), "--micro_batching", "said"]) == 0
    for mine, theirs in zip(logged(tmp_path / "auto"), logged(tmp_path / "said"), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-6)

    capfd.readouterr()
    more = ["--max_steps", "3", "--resume_from_checkpoint", str(tmp_path / "auto" / "checkpoint-2")]
    assert main([*flags, "--output_dir", str(tmp_path / "more"), *more]) == 0
    said = capfd.readouterr()
    assert f"--micro_batching {tokens}" in said.out + said.err
    assert sft_args(tmp_path / "more")["micro_batching"] == tokens


def test_what_is_no_way_to_lay_out_rows_is_refused(tiny_llama_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for value in ("0", "-1", "many", "1.5"):
        words = ["sft", "--model_id_or_path", str(tiny_llama_dir), "--dataset", "alpaca-en", "--micro_batching", value]
        assert main(words) == 2
        assert "--micro_batching" in capfd.readouterr().err


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_pairs_are_laid_out_and_losses_over_a_micro_batch_are_not(
    method: str, tiny_llama_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    answers = [{"response": "so " * (i % 5) + "yes"} for i in range(24)]
    if method == "dpo":
        pairs = [{"query": f"Say {i}", **a, "rejected_response": "no " * (1 + i % 3)} for i, a in enumerate(answers)]
    else:
        pairs = [{"query": f"Say {i}", **a, "label": bool(i % 2)} for i, a in enumerate(answers)]
    rows.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    flags = ["rlhf", "--rlhf_type", method, "--model_id_or_path", str(tiny_llama_dir), "--dataset", str(rows)]
    flags += ["--add_output_dir_suffix", "false", "--max_steps", "2", "--logging_steps", "1", "--report_to", "none"]
    flags += ["--evaluation_strategy", "no"]
    for how in ("auto", "said"):
        assert main([*flags, "--output_dir", str(tmp_path / how), "--micro_batching", how]) == 0
    printed = capfd.readouterr()
    assert ("passes of up to" in printed.out + printed.err) == (method == "dpo")
    for mine, theirs in zip(logged(tmp_path / "auto"), logged(tmp_path / "said"), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5, abs=1e-6)
