"""The table of training methods: what it names exists, and items are counted."""

from __future__ import annotations

import importlib

import pytest

from swift.core.errors import NotBuilt
from swift.params.flag import flags_of
from swift.params.groups import Rlhf
from swift.params.parse import parse
from swift.plan.methods import METHODS, plan_method
from swift.training.batches import Collate


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


def test_items_are_counted() -> None:
    assert Collate(True, 0)([{"input_ids": [1], "labels": [1], "row": 0}])["items"] == 1
