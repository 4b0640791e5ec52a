from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from swift.catalog import load_catalog
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.parse import parse
from swift.plan.sft import SftPlan, plan_sft


@pytest.fixture
def plan(tmp_path: Path) -> Any:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "rows.jsonl").write_text("")

    def make(*words: str, command: str = "sft", machine: Machine | None = None) -> SftPlan:
        given = [command, "--model_id_or_path", str(model), "--dataset", str(tmp_path / "rows.jsonl"), *words]
        return plan_sft(parse(given), load_catalog(), machine or Machine())

    return make


@pytest.mark.parametrize(
    ("words", "processes", "accumulation"),
    [((), 1, 16), (("--batch_size", "2"), 1, 8), (("--batch_size", "3"), 2, 3), (("--batch_size", "32"), 1, 1)],
)
def test_sixteen_rows_a_step_unless_said(plan: Any, words: tuple[str, ...], processes: int, accumulation: int) -> None:
    assert plan(*words, machine=Machine(world_size=processes)).train.accumulation == accumulation


def test_the_last_step_of_an_epoch_takes_what_is_left(plan: Any) -> None:
    train = plan("--batch_size", "2").train
    assert train.steps(198) == (13, 13)
    assert train.steps(1) == (1, 1)
    assert plan("--batch_size", "2", "--num_train_epochs", "2.5").train.steps(198) == (13, 33)
    assert plan("--max_steps", "7").train.steps(198)[1] == 7
    assert plan("--batch_size", "4", "--dataloader_drop_last", "true").train.steps(63) == (4, 4)


def test_the_learning_rate_follows_the_tuner(plan: Any) -> None:
    assert plan().train.learning_rate == 1e-4
    assert plan("--sft_type", "full").train.learning_rate == 1e-5
    assert plan("--sft_type", "full", "--learning_rate", "3e-5").train.learning_rate == 3e-5


def test_rows_that_make_no_full_batch_are_no_run(plan: Any) -> None:
    train = plan("--batch_size", "4", "--dataloader_drop_last", "true", "--max_steps", "2").train
    with pytest.raises(SwiftError, match="2 rows make no full batch of 4"):
        train.steps(2)


def test_rows_beyond_the_last_full_batch_are_counted(plan: Any) -> None:
    assert plan("--batch_size", "4", "--dataloader_drop_last", "true").train.left_out(63) == 3
    assert plan("--batch_size", "4", "--dataloader_drop_last", "true").train.left_out(64) == 0
    assert plan("--batch_size", "4").train.left_out(63) == 0


@pytest.mark.parametrize(
    ("words", "steps", "parts"),
    [
        ((), 1, ["only 1 optimizer step", "nothing will be learned", "--gradient_accumulation_steps below 16"]),
        (("--max_steps", "4"), 4, ["only 4 optimizer steps", "--warmup_ratio 0"]),
        (("--warmup_steps", "90"), 40, ["40 of them warm-up"]),
        (("--lr_scheduler_type", "constant"), 3, ["only 3 optimizer steps; --num_train_epochs"]),
    ],
)
def test_a_run_that_will_hardly_learn_says_so(plan: Any, words: tuple[str, ...], steps: int, parts: list[str]) -> None:
    text = plan(*words).train.few_steps(steps)
    assert text is not None and all(part in text for part in parts)


def test_a_run_of_enough_steps_says_nothing(plan: Any) -> None:
    assert plan().train.few_steps(13) is None


def test_warmup_steps_beat_the_ratio(plan: Any) -> None:
    assert plan().train.warmup(13) == 1
    assert plan("--warmup_steps", "4").train.warmup(13) == 4
    assert plan("--lr_scheduler_type", "constant").train.warmup(13) == 0


def test_saving_follows_evaluation(plan: Any) -> None:
    train = plan("--eval_steps", "7").train
    assert (train.eval_steps, train.save_steps, train.save_total_limit) == (7, 7, 2)
    assert plan("--save_total_limit", "-1").train.save_total_limit is None
    assert plan(command="pt").train.eval_steps == 500


def test_a_process_of_its_own_encodes_rows_only_where_rows_are_encoded_late(plan: Any) -> None:
    assert plan().train.workers == 0
    assert plan("--lazy_tokenize", "true").train.workers == 1
    assert plan("--dataloader_num_workers", "3").train.workers == 3


def test_min_lr_is_a_cosine_that_stops_there(plan: Any) -> None:
    train = plan("--min_lr", "1e-6", "--lr_scheduler_kwargs", '{"num_cycles": 0.5}').train
    assert train.scheduler == "cosine_with_min_lr"
    assert train.scheduler_kwargs == {"num_cycles": 0.5, "min_lr": 1e-6}


def test_the_summary_says_what_will_happen(plan: Any) -> None:
    text = plan("--batch_size", "2", "--max_steps", "5").summary()
    for part in ("swift sft", "lora", "2 x 8 accumulation = 16 rows a step, 5 steps", "cosine from 0.0001"):
        assert part in text


def test_the_dataset_seed_orders_the_rows(plan: Any) -> None:
    assert plan("--seed", "5").train.data_seed == 5
    assert plan("--seed", "5", "--dataset_seed", "6").train.data_seed == 6


def test_one_process_rehearses(plan: Any) -> None:
    assert plan("--rehearse").train.group.rehearse
    with pytest.raises(SwiftError, match="--rehearse works with one process"):
        plan("--rehearse", machine=Machine(world_size=2))
