"""The table of training methods: what it names exists, and items are counted."""

from __future__ import annotations

import importlib

from swift.params.flag import flags_of
from swift.params.groups import Rlhf
from swift.plan.methods import METHODS
from swift.training.batches import Collate


def test_every_name_in_the_table_is_code() -> None:
    for method in METHODS.values():
        for name in (method.collator, method.objective):
            module, _, attribute = name.partition(":")
            assert callable(getattr(importlib.import_module(module), attribute))


def test_every_rlhf_type_is_a_method() -> None:
    (flag,) = (flag for flag in flags_of(Rlhf) if flag.name == "rlhf_type")
    assert flag.choices is not None and set(flag.choices) <= set(METHODS)


def test_items_are_counted() -> None:
    assert Collate(True, 0)([{"input_ids": [1], "labels": [1], "row": 0}])["items"] == 1
