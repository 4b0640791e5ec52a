"""Whole runs on a tiny model: what is saved, kept, logged, and what stops them."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from swift.core.errors import CheckFailed, SwiftError
from swift.plan.tuner import TunerPlan
from swift.training.callbacks.loss_watch import NotANumber
from swift.training.checkpoints import checkpoints
from swift.training.loop import finish, resume_command, train
from swift.training.objectives import Batch, Sums
from swift.training.objectives.sft import SftObjective
from swift.training.rehearsal import rehearsed
from swift.training.smaller_batches import halved
from training.kit import FULL, LORA, Rows, losses, tiny_plan, tiny_run, weights


def test_a_run_leaves_its_log_its_curves_and_its_checkpoints(tmp_path: Path) -> None:
    run = tiny_run(
        tmp_path / "run",
        tuner=LORA,
        val=Rows(5, seed=3),
        max_steps=6,
        logging_steps=5,
        evaluation_strategy="steps",
        eval_steps=4,
        save_strategy="steps",
        save_steps=2,
        report_to=("tensorboard",),
    )
    trainer = train(run)
    finish(trainer, run)
    events = [json.loads(line) for line in (run.folder / "logging.jsonl").read_text().splitlines()]
    trained = [event["global_step/max_steps"] for event in events if "loss" in event]
    evaluated = [event["global_step/max_steps"] for event in events if "eval_loss" in event]
    assert trained == ["1/6", "5/6"], "the first step and every logging_steps"
    assert evaluated == ["4/6", "6/6"], "every eval_steps and at the end"
    assert {"acc", "grad_norm", "learning_rate", "memory(GiB)", "train_speed(iter/s)", "tokens/s", "epoch"} <= set(
        events[0]
    )
    assert events[0]["percentage"] == "16.67%"
    assert events[-2]["train_runtime"] > 0
    assert events[-1]["last_model_checkpoint"] == str(run.folder / "checkpoint-6")
    assert events[-1]["best_model_checkpoint"] in [str(path) for path in checkpoints(run.folder)]
    assert events[-1]["dataset_info"]["train_dataset"].endswith("size=32")
    assert len(checkpoints(run.folder)) == 2
    images = {path.name for path in (run.folder / "images").iterdir()}
    assert {"train_loss.png", "train_acc.png", "eval_loss.png", "train_train_speed(iter_s).png"} <= images
    assert list((run.folder / "runs").glob("events.out.tfevents.*"))
    assert json.loads((run.folder / "training_args.json").read_text())["max_steps"] == 6


def test_the_best_checkpoint_outlives_later_ones(tmp_path: Path) -> None:
    losses_by_call = iter([3.0, 1.0, 2.0, 2.5, 2.7])
    run = tiny_run(
        tmp_path / "run",
        val=Rows(2),
        max_steps=5,
        evaluation_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        evaluator=lambda model, size: {"loss": next(losses_by_call)},
    )
    trainer = train(run)
    assert [path.name for path in checkpoints(run.folder)] == ["checkpoint-2", "checkpoint-5"]
    assert trainer.state.best_model_checkpoint == str(run.folder / "checkpoint-2")


def test_evaluation_is_the_mean_over_all_trained_tokens_and_leaves_training_alone(tmp_path: Path) -> None:
    val = Rows(5, seed=3)
    options: dict[str, Any] = {"tuner": LORA, "val": val, "max_steps": 3}
    quiet = tiny_run(tmp_path / "quiet", **options)
    without = losses(train(quiet))
    run = tiny_run(tmp_path / "run", **options, evaluation_strategy="steps", eval_steps=1)
    trainer = train(run)
    assert losses(trainer) == without
    assert torch.equal(weights(run.model), weights(quiet.model))

    objective = SftObjective(run.model.get_base_model())  # type: ignore[operator]
    total = count = 0.0
    run.model.eval()
    for item in val.items:
        batch = run.collate([item])
        with torch.no_grad():
            total += objective.sums(run.model, batch).loss.item()
        count += objective.denominator(batch).item()
    logged = [event["eval_loss"] for event in trainer.state.log_history if "eval_loss" in event][-1]
    assert logged == pytest.approx(total / count, rel=1e-5)


class FitsTwo(SftObjective):
    """Runs out of memory on more than two rows."""

    def sums(self, model: nn.Module, batch: Batch) -> Sums:
        if batch["items"] > 2 and torch.is_grad_enabled():
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        return super().sums(model, batch)


class FitsNone(SftObjective):
    """Runs out of memory on any row."""

    def sums(self, model: nn.Module, batch: Batch) -> Sums:
        raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")


def test_a_batch_that_does_not_fit_is_halved_and_the_step_stays_the_same(tmp_path: Path) -> None:
    same = tiny_run(tmp_path / "same", batch_size=2, accumulation=4, max_steps=3)
    expected = losses(train(same))
    run = tiny_run(
        tmp_path / "run", objective=FitsTwo, batch_size=8, accumulation=1, max_steps=3, auto_find_batch_size=True
    )
    trainer = train(run)
    assert losses(trainer) == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(weights(run.model), weights(same.model), rtol=1e-5, atol=1e-6)
    assert trainer.args.per_device_train_batch_size == 2


def fits_two_later(passes: list[int]) -> type[SftObjective]:
    """An objective that notes the rows of each pass, and from the fourth on has room for two."""

    class FitsTwoLater(SftObjective):
        def sums(self, model: nn.Module, batch: Batch) -> Sums:
            passes.append(batch["items"])
            if batch["items"] > 2 and len(passes) > 3:
                raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
            return super().sums(model, batch)

    return FitsTwoLater


def test_a_run_goes_on_from_its_last_checkpoint_where_a_longer_row_does_not_fit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Only what was done since is done again; optimizer, schedule and order of rows are those of the checkpoint."""
    options: dict[str, Any] = {
        **{"tuner": LORA, "max_steps": 5, "save_strategy": "steps", "save_steps": 2},
        **{"optim": "adamw_torch", "scheduler": "cosine", "learning_rate": 0.01},
    }
    same = tiny_run(tmp_path / "same", batch_size=2, accumulation=4, **options)
    expected = losses(train(same))
    passes: list[int] = []

    run = tiny_run(
        tmp_path / "run",
        objective=fits_two_later(passes),
        batch_size=8,
        accumulation=1,
        auto_find_batch_size=True,
        **options,
    )
    trainer = train(run)
    assert passes == [8, 8, 8, 8, 4, *[2] * 12], "three steps, the fourth fails; steps 3 to 5 after checkpoint-2"
    assert losses(trainer) == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(weights(run.model), weights(same.model), rtol=1e-5, atol=1e-6)
    told = [record.message for record in caplog.records if "does not fit into memory" in record.message]
    assert [("from checkpoint-2" in line, "8 rows a step" in line) for line in told] == [(True, True)] * 2


@pytest.mark.parametrize("save_steps", [2, 9])
def test_steps_that_are_done_again_are_once_in_the_curves(save_steps: int, tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    passes: list[int] = []

    options: dict[str, Any] = {"logging_steps": 1, "report_to": ("tensorboard",), "save_strategy": "steps"}
    options |= {"batch_size": 4, "accumulation": 1, "max_steps": 5, "save_steps": save_steps}
    train(tiny_run(tmp_path / "run", objective=fits_two_later(passes), auto_find_batch_size=True, **options))
    curves = event_accumulator.EventAccumulator(str(tmp_path / "run" / "runs"))
    curves.Reload()
    assert [point.step for point in curves.Scalars("train/loss")] == [1, 2, 3, 4, 5]


def test_rows_that_are_left_out_of_an_epoch_stay_left_out_in_smaller_batches(tmp_path: Path) -> None:
    """Fourteen rows make one batch of eight, and three of four."""
    options: dict[str, Any] = {"max_steps": 4, "dataloader_drop_last": True, "batch_size": 8, "accumulation": 1}
    expected = losses(train(tiny_run(tmp_path / "same", train=Rows(14), **options)))
    run = tiny_run(tmp_path / "run", train=Rows(14), objective=FitsTwo, auto_find_batch_size=True, **options)
    assert losses(train(run)) == pytest.approx(expected, rel=1e-6)


def test_an_evaluation_that_does_not_fit_is_halved_alone(tmp_path: Path) -> None:
    class EvaluatesTwo(SftObjective):
        def sums(self, model: nn.Module, batch: Batch) -> Sums:
            if batch["items"] > 2 and not torch.is_grad_enabled():
                raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
            return super().sums(model, batch)

    options: dict[str, Any] = {"val": Rows(5, seed=3), "max_steps": 2, "evaluation_strategy": "steps"}
    same = train(tiny_run(tmp_path / "same", batch_size=4, accumulation=1, eval_batch_size=2, **options))
    run = tiny_run(tmp_path / "run", objective=EvaluatesTwo, batch_size=4, accumulation=1, eval_batch_size=8, **options)
    run = replace(run, plan=replace(run.plan, group=run.plan.group.replace(auto_find_batch_size=True)))
    trainer = train(run)
    assert trainer.args.per_device_train_batch_size == 4 and trainer.args.per_device_eval_batch_size == 2
    mine, theirs = (
        [event["eval_loss"] for event in one.state.log_history if "eval_loss" in event] for one in (trainer, same)
    )
    assert mine == pytest.approx(theirs, rel=1e-6)


def test_a_batch_of_one_row_that_does_not_fit_ends_the_run(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", objective=FitsNone, batch_size=4, accumulation=1, auto_find_batch_size=True)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(run)


def test_a_rehearsal_finds_the_batch_that_fits_and_leaves_no_trace(tmp_path: Path) -> None:
    """The longest rows are tried first: with dropout the losses tell whether chance and weights are as they were."""
    plain = tiny_run(tmp_path / "plain", batch_size=2, accumulation=4, max_steps=3)
    expected = losses(train(plain))
    same = tiny_run(tmp_path / "same", batch_size=2, accumulation=4, max_steps=3, rehearse=True)
    assert losses(train(rehearsed(same))) == expected
    assert {path.name for path in same.folder.iterdir()} == {path.name for path in plain.folder.iterdir()}
    big = tiny_run(tmp_path / "big", objective=FitsTwo, batch_size=8, accumulation=1, max_steps=3, rehearse=True)
    smaller = rehearsed(big)
    assert (smaller.plan.batch_size, smaller.plan.accumulation) == (2, 4)
    assert losses(train(smaller)) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(RuntimeError, match="out of memory"):
        rehearsed(tiny_run(tmp_path / "none", objective=FitsNone, batch_size=2, accumulation=1, max_steps=1))


def test_without_auto_find_batch_size_the_error_is_shown(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", objective=FitsTwo, batch_size=8, accumulation=1)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(run)


def test_a_rehearsal_knows_how_many_checkpoints_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(tmp_path / "run", max_steps=3, save_strategy="steps", save_steps=1, save_total_limit=None)
    whole = shutil.disk_usage(tmp_path)
    for free, warned in ((whole.free, False), (700_000, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: whole._replace(free=free))
        rehearsed(run)
        assert any("3 checkpoints of 0.5 MiB each will be kept" in one.message for one in caplog.records) == warned


@pytest.mark.parametrize(("size", "accumulation"), [(8, 1), (6, 2), (5, 1), (3, 4)])
def test_halving_keeps_the_rows_of_a_step(size: int, accumulation: int, tmp_path: Path) -> None:
    plan = halved(tiny_plan(tmp_path, batch_size=size, accumulation=accumulation))
    assert plan.batch_size < size
    assert plan.batch_size * plan.accumulation == size * accumulation


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_rows(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", max_steps=2)
    with torch.no_grad():
        next(run.model.parameters())[7] = math.nan
    rows = Rows(4)
    for item in rows.items:
        item["input_ids"][0] = 7
    run = replace(run, train=rows, where=lambda row: f"rows.jsonl:{row + 1}")
    with pytest.raises(CheckFailed, match="loss is nan at step 1") as raised:
        train(run)
    assert "rows.jsonl:" in str(raised.value)


def test_a_weight_that_is_no_number_is_named(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", max_steps=2)
    with torch.no_grad():
        run.model.get_parameter("model.layers.1.mlp.up_proj.weight")[3, 5] = math.nan
    with pytest.raises(CheckFailed, match="loss is nan at step 1") as raised:
        train(run)
    assert "model.layers.1.mlp.up_proj.weight (1 of " in str(raised.value)


def test_a_frozen_weight_that_is_no_number_is_named_at_any_step(tmp_path: Path) -> None:
    rows = Rows(8)
    for number, item in enumerate(rows.items):
        item["input_ids"] = [7 if number == 3 else 8, *[max(token, 8) for token in item["input_ids"][1:]]]
    run = tiny_run(tmp_path / "run", tuner=LORA, train=rows, batch_size=1, accumulation=1, max_steps=8)
    with torch.no_grad():
        run.model.get_parameter("base_model.model.model.embed_tokens.weight")[7] = math.nan
    with pytest.raises(NotANumber) as raised:
        train(run)
    assert raised.value.step > 1 and "embed_tokens.weight (64 of " in str(raised.value)


def test_longest_rows_come_first_when_memory_is_tested(tmp_path: Path) -> None:
    seen: list[int] = []

    class Looking(SftObjective):
        def sums(self, model: nn.Module, batch: Batch) -> Sums:
            seen.append(batch["input_ids"].shape[1])
            return super().sums(model, batch)

    train(tiny_run(tmp_path / "run", objective=Looking, test_oom_error=True, batch_size=1, max_steps=4))
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == max(len(item["input_ids"]) for item in Rows(32).items)


def test_lora_plus_gives_b_its_own_learning_rate(tmp_path: Path) -> None:
    tuner = TunerPlan(sft_type="lora", settings=LORA.settings, lora_lr_ratio=16.0)
    trainer = train(tiny_run(tmp_path / "run", tuner=tuner, max_steps=1))
    rates = sorted(group["lr"] for group in trainer.optimizer.param_groups)
    assert rates == [0.5, 8.0]


def test_neftune_only_changes_training_and_not_by_batching(tmp_path: Path) -> None:
    noisy = tiny_run(tmp_path / "noisy", neftune_noise_alpha=50.0, max_steps=2)
    plain = tiny_run(tmp_path / "plain", max_steps=2)
    assert losses(train(noisy)) != losses(train(plain))
    assert not noisy.model.get_input_embeddings()._forward_hooks  # type: ignore[operator]


def test_sentence_accuracy_counts_rows(tmp_path: Path) -> None:
    def objective(base: PreTrainedModel) -> SftObjective:
        return SftObjective(base, "sentence")

    trainer = train(tiny_run(tmp_path / "run", objective=objective, max_steps=1))
    assert trainer.state.log_history[0]["acc"] == 0


def test_save_only_model_leaves_the_state_out(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", tuner=LORA, max_steps=2, save_strategy="steps", save_only_model=True)
    train(run)
    files = {path.name for path in (run.folder / "checkpoint-2").iterdir()}
    assert "adapter_model.safetensors" in files
    assert not files & {"optimizer.pt", "scheduler.pt", "rng_state.pth"}


def test_schedules_warm_up_and_end_at_the_lowest_rate(tmp_path: Path) -> None:
    schedule: dict[str, Any] = {
        "learning_rate": 1.0,
        "scheduler": "cosine_with_min_lr",
        "scheduler_kwargs": {"min_lr": 0.1},
        "warmup_ratio": 0.2,
    }
    trainer = train(tiny_run(tmp_path / "run", **schedule, max_steps=10, tuner=FULL))
    rates = [event["learning_rate"] for event in trainer.state.log_history if "loss" in event]
    assert rates[:3] == [0.0, 0.5, 1.0]
    assert rates[-1] >= 0.1
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_an_unknown_optimizer_is_a_mistake_with_a_suggestion(tmp_path: Path) -> None:
    from swift.training.check_names import check_names

    with pytest.raises(SwiftError, match="adamw_torhc") as raised:
        check_names(tiny_plan(tmp_path, optim="adamw_torhc"))
    assert "adamw_torch" in str(raised.value)


@pytest.mark.parametrize(
    ("optim", "told"),
    [
        ("galore_adamw", "--use_galore true"),
        ("lomo", "inside the backward pass"),
        ("schedule_free_adamw", "not those it would save"),
        ("adamw_torch_xla", "torch_xla"),
    ],
)
def test_an_optimizer_that_cannot_work_here_is_refused_before_any_weights(
    optim: str, told: str, tmp_path: Path
) -> None:
    from swift.training.check_optimizer import check_optimizer

    with pytest.raises(SwiftError) as caught:
        check_optimizer(tiny_plan(tmp_path, optim=optim))
    assert told in "\n".join(caught.value.lines())


@pytest.mark.parametrize(
    ("schedule", "settings", "told"),
    [
        ("cosine", '{"num_cycle": 1}', "did you mean num_cycles?"),
        ("cosine", '{"num_cycles": "x"}', "could not convert"),
        ("cosine", '{"last_epoch": 5}', "has no last_epoch"),
        ("constant", '{"a": 1}', "the schedule constant has no a"),
        ("linear", '{"num_warmup_steps": 3}', "has no num_warmup_steps"),
        ("polynomial", '{"lr_end": 5}', "must be smaller than"),
        ("inverse_sqrt", '{"timescale": 0}', "division by zero"),
        ("warmup_stable_decay", "{}", "needs num_decay_steps"),
        ("cosine_with_min_lr", "{}", "min_lr"),
        ("reduce_lr_on_plateau", '{"factor": 5}', "Factor should be"),
        ("greedy", '{"factory": 5}', "did you mean factor?"),
        ("cosine_with_restarts", '{"num_cycles": 3}', ""),
        ("polynomial", '{"power": 2}', ""),
        ("reduce_lr_on_plateau", '{"patience": 3}', ""),
        ("greedy", "{}", ""),
        ("warmup_stable_decay", '{"num_decay_steps": 5}', ""),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_before_any_weights(
    schedule: str, settings: str, told: str, tmp_path: Path
) -> None:
    from swift.training.check_schedule import check_schedule

    plan = tiny_plan(tmp_path, scheduler=schedule, scheduler_kwargs=json.loads(settings))
    if not told:
        return check_schedule(plan)
    with pytest.raises(SwiftError) as caught:
        check_schedule(plan)
    assert told in "\n".join(caught.value.lines())


def test_the_resume_command_names_the_checkpoint_once(tmp_path: Path) -> None:
    line = "swift sft --resume-from-checkpoint auto --system 'a b'"
    expected = f"swift sft --system 'a b' --resume_from_checkpoint {tmp_path}/checkpoint-7"
    assert resume_command(line, tmp_path, 7) == expected


@pytest.mark.parametrize(
    ("tracker", "given"), [("wandbb", "did you mean wandb"), ("clearml", "clearml is not installed")]
)
def test_a_tracker_that_is_not_there_is_named(tracker: str, given: str, tmp_path: Path) -> None:
    from swift.training.check_names import check_names

    with pytest.raises(SwiftError) as caught:
        check_names(tiny_plan(tmp_path, report_to=("tensorboard", tracker)))
    assert given in "\n".join(caught.value.lines())
