"""The rows that `infer` answers: which, how many, and in what order."""

from __future__ import annotations

from pathlib import Path

import pytest

from swift.catalog import load_catalog
from swift.data.prompt_rows import prompt_rows
from swift.params.parse import parse
from swift.plan.data import plan_data
from swift.prompts.encode import Encoder

from .rows import chat_rows, run, write_rows


def origins(*argv: str) -> list[str]:
    """Where the rows come from that an `infer` command answers."""
    plan = plan_data(parse(["infer", "--model_id_or_path", "m", *argv]), load_catalog())
    return [str(row.origin) for row in prompt_rows(plan)]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files of six rows, one bad row in the first."""
    first = write_rows(tmp_path / "a.jsonl", [*chat_rows(2), {"response": None}, *chat_rows(3, start=2)])
    return [first, write_rows(tmp_path / "b.jsonl", chat_rows(6, start=50))]


def test_a_data_set_that_is_used_whole_gives_every_row_in_order(files: list[Path]) -> None:
    assert origins("--val_dataset", str(files[0])) == [f"{files[0]}:{line}" for line in range(1, 7)]


@pytest.mark.parametrize("count", [2, 5])
def test_val_dataset_sample_counts_over_all_data_sets(
    count: int, files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = origins("--val_dataset", *map(str, files), "--val_dataset_sample", str(count))

    assert len(drawn) == len(set(drawn)) == count
    log = capsys.readouterr().err
    assert f"{files[0]}: 1 of 6 rows cannot be used and none of them is chosen; the first is {files[0]}:3" in log


def test_rows_that_training_held_back_are_those_that_it_validated_on(
    files: list[Path], encoder: Encoder, tmp_path: Path
) -> None:
    argv = ["--dataset", str(files[1]), "--dataset_test_ratio", "0.7", "--val_dataset_sample", "2"]
    val = run(encoder, tmp_path / "ledger", *argv, "--no_cache").val

    assert val is not None and len(val) == 2
    assert origins(*argv) == [val.origin(number) for number in range(2)]  # type: ignore[attr-defined]
