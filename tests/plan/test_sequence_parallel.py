"""`--sequence_parallel_size` as a plan: groups of processes count as one, and what cannot be is refused."""

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

    def make(*words: str, processes: int) -> SftPlan:
        given = ["sft", "--model_id_or_path", str(model), "--dataset", str(tmp_path / "rows.jsonl"), *words]
        return plan_sft(parse(given), load_catalog(), Machine(world_size=processes, local_world_size=processes))

    return make


def test_processes_that_share_rows_count_as_one(plan: Any) -> None:
    whole = plan("--sequence_parallel_size", "2", "--batch_size", "2", processes=8)
    train = whole.train
    assert (train.sequence_parallel, train.data_parallel, train.accumulation) == (2, 4, 2)
    assert train.effective_batch == 16
    assert train.steps(64) == (4, 4)
    assert "2 x 2 accumulation x 4 groups of 2 processes = 16 rows a step" in whole.summary()


@pytest.mark.parametrize(
    ("words", "processes", "message"),
    [
        ("--sequence_parallel_size 3", 4, "does not divide the number of processes (4), use one of 1, 2, 4"),
        ("--sequence_parallel_size 2", 1, "does not divide the number of processes (1), set NPROC_PER_NODE=N"),
        ("--sequence_parallel_size 4", 2, "does not divide the number of processes (2)"),
        ("--sequence_parallel_size 2 --rope_scaling dynamic --max_length 99", 2, "--rope_scaling dynamic does not go"),
        ("--sequence_parallel_size 2 --acc_strategy sentence", 2, "--acc_strategy sentence is not built yet"),
        ("--sequence_parallel_size 2 --torch_compile true", 2, "--torch_compile is not built yet"),
    ],
)
def test_what_cannot_be_is_refused(words: str, processes: int, message: str, plan: Any) -> None:
    with pytest.raises(SwiftError) as error:
        plan(*words.split(), processes=processes)
    assert message in f"{error.value.what}, {error.value.next}"
