"""The table of training methods: what it names exists, and pairs become a batch of twice as many sequences."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from swift.core.errors import NotBuilt
from swift.params.flag import flags_of
from swift.params.groups import Rlhf
from swift.params.parse import parse
from swift.plan.methods import METHODS, plan_method
from swift.prompts.types import IGNORED
from swift.training.batches import Collate, CollatePairs


def test_every_name_in_the_table_is_code() -> None:
    for method in METHODS.values():
        for name in (method.collator, method.objective):
            if name is not None:
                module, _, attribute = name.partition(":")
                assert callable(getattr(importlib.import_module(module), attribute))


def test_every_rlhf_type_is_a_method() -> None:
    (flag,) = (flag for flag in flags_of(Rlhf) if flag.name == "rlhf_type")
    assert flag.choices is not None and set(flag.choices) <= set(METHODS)


def test_a_method_without_an_objective_is_refused() -> None:
    words = ["--model_id_or_path", "m", "--dataset", "d"]
    assert plan_method(parse(["pt", *words])) == "pt"
    for name, method in METHODS.items():
        if method.objective is None:
            with pytest.raises(NotBuilt, match=name):
                plan_method(parse(["rlhf", "--rlhf_type", name, *words]))


def pair(row: int, prompt: int, chosen: list[int], rejected: list[int]) -> dict[str, Any]:
    return {
        "chosen_input_ids": [prompt, *chosen],
        "chosen_labels": [IGNORED, *chosen],
        "rejected_input_ids": [prompt, *rejected],
        "rejected_labels": [IGNORED, *rejected],
        "row": row,
    }


PAIRS = [pair(8, 1, [2, 3], [4]), pair(3, 5, [6], [7])]


def test_pairs_are_the_chosen_ends_and_then_the_rejected() -> None:
    flat, padded = CollatePairs(True, 0)(PAIRS), CollatePairs(False, 0)(PAIRS)
    assert flat["input_ids"].tolist() == [[1, 2, 3, 5, 6, 1, 4, 5, 7]]
    assert flat["sequence_lengths"] == (3, 2, 2, 2)
    assert padded["input_ids"].tolist() == [[1, 2, 3], [5, 6, 0], [1, 4, 0], [5, 7, 0]]
    assert padded["labels"].tolist() == [[-100, 2, 3], [-100, 6, -100], [-100, 4, -100], [-100, 7, -100]]
    for batch in (flat, padded):
        assert (batch["rows"], batch["items"]) == ([8, 3], 2)


def test_items_are_counted() -> None:
    assert Collate(True, 0)([{"input_ids": [1], "labels": [1], "row": 0}])["items"] == 1
