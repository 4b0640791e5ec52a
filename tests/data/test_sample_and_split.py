"""Sampling, repeating and splitting: the order of the 2.5 release, without its assertion errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swift.data.sample_and_split import choose, choose_val

CASES = json.loads((Path(__file__).parents[1] / "fixtures" / "dataset_cases.json").read_text("utf-8"))


@pytest.mark.parametrize("case", [case for case in CASES["sampling_and_split"] if "error" not in case])
def test_the_same_seed_chooses_the_same_rows(case: dict[str, Any]) -> None:
    train: list[str] = []
    val: list[str] = []
    for text in case["dataset"]:
        file, _, sample = text.partition("#")
        rows, mark = (100, "q") if file.startswith("n100") else (10, "mq")
        chosen = choose(rows, int(sample or -1), case["dataset_test_ratio"], case["seed"], text)
        for side, indices in zip((train, val), chosen, strict=True):
            side += [f"{mark}{index}" for index in indices]

    assert len(train) == (case["n_train"] or 0)
    assert len(val) == (case["n_val"] or 0)
    assert train[:12] == (case["train_first"] or [])
    assert val[:12] == (case["val_first"] or [])


def test_every_row_is_on_one_side_once() -> None:
    train, val = choose(57, -1, 0.2, 3, "x")

    assert sorted([*train, *val]) == list(range(57))


def test_one_row_trains_and_nothing_is_held_back() -> None:
    train, val = choose(10, 1, 0.01, 42, "x")
    assert (len(train), len(val)) == (1, 0)

    train, val = choose(1, -1, 0.01, 42, "x")
    assert (len(train), len(val)) == (1, 0)


def test_validation_rows_are_never_repeated() -> None:
    assert sorted(choose(10, 20, 1.0, 42, "x")[1]) == list(range(10))
    assert sorted(choose_val(10, 20, 42, "x")) == list(range(10))
    assert len(np.unique(choose_val(10, 4, 42, "x"))) == 4


def test_nothing_comes_of_nothing() -> None:
    assert [len(side) for side in choose(0, -1, 0.01, 42, "x")] == [0, 0]
