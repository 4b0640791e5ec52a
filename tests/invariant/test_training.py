"""What must not change the numbers: how rows are split, packed, recomputed or interrupted."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from swift.core.errors import SwiftError
from swift.data.collator import flatten, pad
from swift.plan.tuner import TunerPlan
from swift.training.loop import train
from swift.training.objectives.sft import SftObjective
from swift.training.varlen_attention import keep_inside_sequences
from training.kit import FULL, LORA, Rows, losses, tiny_model, tiny_run, weights

DROPOUT = replace(LORA, settings={**LORA.settings, "lora_dropout": 0.3})


@pytest.mark.parametrize("tuner", [LORA, FULL], ids=["lora", "full"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_batch_times_accumulation(tuner: TunerPlan, weighted: bool, tmp_path: Path) -> None:
    rows = Rows(16, weighted=weighted)
    runs = []
    for batch, accumulation in ((4, 1), (2, 2), (1, 4)):
        run = tiny_run(
            tmp_path / f"{batch}", tuner=tuner, train=rows, batch_size=batch, accumulation=accumulation, max_steps=3
        )
        trainer = train(run)
        runs.append((losses(trainer), weights(run.model)))
    for got in runs[1:]:
        torch.testing.assert_close(torch.tensor(got[0]), torch.tensor(runs[0][0]), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(got[1], runs[0][1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tuner", [LORA, FULL], ids=["lora", "full"])
def test_padding_free_equals_padded(tuner: TunerPlan, tmp_path: Path) -> None:
    flat = tiny_run(tmp_path / "flat", tuner=tuner)
    padded = tiny_run(tmp_path / "padded", tuner=tuner, flat=False)
    flat_losses, padded_losses = losses(train(flat)), losses(train(padded))
    torch.testing.assert_close(torch.tensor(flat_losses), torch.tensor(padded_losses), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weights(flat.model), weights(padded.model), rtol=1e-5, atol=1e-5)


def test_the_loss_is_the_weighted_mean_over_all_trained_tokens_of_the_step(tmp_path: Path) -> None:
    rows = Rows(4, weighted=True)
    trainer = train(tiny_run(tmp_path, train=rows, max_steps=1, batch_size=2, accumulation=2))

    model = tiny_model()
    total = weight = 0.0
    for item in rows.items:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([item["input_ids"]])).logits[0, :-1].double()
        labels = torch.tensor(item["labels"])[1:]
        scale = torch.tensor(item["loss_scale"])[1:].double()
        nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        total += (nll * scale)[labels != -100].sum().item()
        weight += scale[labels != -100].sum().item()
    assert losses(trainer)[0] == pytest.approx(total / weight, rel=1e-6)


@pytest.mark.parametrize("collated", ["flat", "padded"])
def test_chunked_loss_equals_the_models_own_logits(collated: str) -> None:
    rows = Rows(3, weighted=True).items
    batch = flatten(rows) if collated == "flat" else pad(rows, 0)
    model = tiny_model()
    assert keep_inside_sequences(model)
    ours = SftObjective(model)
    plain = SftObjective(model)
    plain._head.linear = None
    grads: list[torch.Tensor] = []
    values: list[torch.Tensor] = []
    for objective in (ours, plain):
        model.zero_grad()
        result = objective.sums(model, dict(batch))
        result.loss.backward()
        values.append(result.loss.detach())
        grads.append(torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(values[0], values[1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tuner", [DROPOUT, FULL], ids=["lora", "full"])
def test_gradient_checkpointing(tuner: TunerPlan, tmp_path: Path) -> None:
    plain = tiny_run(tmp_path / "plain", tuner=tuner)
    recomputed = tiny_run(tmp_path / "recomputed", tuner=tuner, recompute=True)
    plain_losses, recomputed_losses = losses(train(plain)), losses(train(recomputed))
    torch.testing.assert_close(torch.tensor(recomputed_losses), torch.tensor(plain_losses), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(weights(recomputed.model), weights(plain.model), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("tuner", [DROPOUT, FULL], ids=["lora", "full"])
@pytest.mark.parametrize("saved_at", [3, 8], ids=["inside an epoch", "between epochs"])
def test_resumed_equals_uninterrupted(tuner: TunerPlan, saved_at: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "tuner": tuner,
        "train": Rows(32),
        "val": Rows(4, seed=9),
        "max_steps": 12,
        "save_strategy": "steps",
        "save_total_limit": None,
        "save_steps": saved_at,
        "evaluation_strategy": "steps",
        "eval_steps": 2,
        "optim": "adamw_torch",
        "learning_rate": 1e-2,
        "scheduler": "cosine",
        "warmup_steps": 2,
    }
    whole = tiny_run(tmp_path / "whole", **options)
    trainer = train(whole)
    again = tiny_run(tmp_path / "again", resume=whole.folder / f"checkpoint-{saved_at}", **options)
    resumed = train(again)
    assert losses(resumed) == losses(trainer)
    assert torch.equal(weights(again.model), weights(whole.model))


@pytest.mark.parametrize("optim", ["sgd", "adamw_torch"])
def test_a_resumed_run_goes_by_its_own_settings(optim: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"tuner": DROPOUT, "save_strategy": "steps", "scheduler": "cosine", "optim": optim}
    done = tiny_run(tmp_path / "run", **options, learning_rate=0.1, max_steps=4, save_steps=4)
    train(done)
    resume = done.folder / "checkpoint-4"
    more = {"learning_rate": 0.2, "weight_decay": 0.05, "max_steps": 8, "save_steps": 8}
    trainer = train(tiny_run(tmp_path / "more", resume=resume, **options, **more))
    rates = [event["learning_rate"] for event in trainer.state.log_history if "loss" in event and event["step"] > 4]
    assert rates == pytest.approx([0.1 * (1 + math.cos(math.pi * step / 8)) for step in range(4, 8)])
    assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {0.05}
    first = json.loads((tmp_path / "more" / "logging.jsonl").read_text().splitlines()[0])
    assert first["learning_rate"] == pytest.approx(0.1)


def test_a_resumed_run_goes_by_its_own_intervals(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "save_strategy": "steps",
        "evaluation_strategy": "steps",
        "val": Rows(2),
        "save_total_limit": None,
    }
    train(tiny_run(tmp_path / "run", **options, max_steps=4, save_steps=4, eval_steps=4, logging_steps=2))
    resume, more = tmp_path / "run" / "checkpoint-4", tmp_path / "more"
    again = {"max_steps": 9, "save_steps": 3, "eval_steps": 1, "logging_steps": 1}
    trainer = train(tiny_run(more, resume=resume, **options, **again))
    steps = {name: [e["step"] for e in trainer.state.log_history if name in e] for name in ("loss", "eval_loss")}
    assert steps == {"loss": [1, 2, 4, 5, 6, 7, 8, 9], "eval_loss": [4, 5, 6, 7, 8, 9]}
    assert {folder.name for folder in more.glob("checkpoint-*")} == {"checkpoint-6", "checkpoint-9"}


def test_a_resumed_run_goes_by_its_own_metric(tmp_path: Path) -> None:
    scores = iter([3.0, 1.0, 2.0, 2.5])
    options: dict[str, Any] = {
        "save_strategy": "steps",
        "evaluation_strategy": "steps",
        "val": Rows(2),
        "save_total_limit": None,
        "eval_steps": 1,
        "save_steps": 1,
        "evaluator": lambda *_: {"rouge-l": next(scores)},
    }
    run = tmp_path / "run"
    before = train(tiny_run(run, **options, max_steps=2, learning_rate=0.01))
    assert before.state.best_model_checkpoint == str(run / "checkpoint-2")
    more = {"best_metric": "rouge-l", "max_steps": 4}
    after = train(tiny_run(run, resume=run / "checkpoint-2", **options, **more))
    assert after.state.best_metric == 3.0 and after.state.best_model_checkpoint == str(run / "checkpoint-1")
    lines = [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]
    evaluated = [line["global_step/max_steps"] for line in lines if "eval_loss" in line]
    assert evaluated == ["1/2", "2/2", "3/4", "4/4"]


def test_a_plateau_keeps_the_rate_it_had_reached(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "save_strategy": "steps",
        "evaluation_strategy": "steps",
        "val": Rows(2),
        "scheduler": "reduce_lr_on_plateau",
        "scheduler_kwargs": {"patience": 0, "threshold": 0.9, "factor": 0.5},
        "eval_steps": 1,
        "save_steps": 4,
    }
    done = train(tiny_run(tmp_path / "run", **options, max_steps=4))
    reached = done.optimizer.param_groups[0]["lr"]
    assert reached < 0.5
    resumed = train(tiny_run(tmp_path / "more", **options, resume=tmp_path / "run" / "checkpoint-4", max_steps=5))
    first = json.loads((tmp_path / "more" / "logging.jsonl").read_text().splitlines()[0])
    assert first["learning_rate"] == pytest.approx(reached)
    assert resumed.state.global_step == 5


def test_a_run_that_ends_early_is_an_error(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", train=Rows(3), dataloader_drop_last=True, batch_size=4, max_steps=2)
    with pytest.raises(SwiftError):
        train(run)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order only."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
