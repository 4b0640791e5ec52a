"""From the user's files to examples: reading, converting, choosing, encoding, with an account of every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from swift.chat.encode import Encoder
from swift.core.errors import SwiftError
from swift.data.eager import encode_all
from swift.data.encode import Recipe
from swift.data.ledger import Ledger
from swift.plan.data import DataPlan

__all__ = ["Built", "Ledger", "build"]


@dataclass(frozen=True)
class Built:
    """The two sides of a run's data; `val` is None when nothing is held back."""

    train: Any
    val: Any | None

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter((self.train, self.val))


def build(plan: DataPlan, encoder: Encoder, ledger: Ledger) -> Built:
    """Read and encode the data of a run.

    Items are dicts of lists: `input_ids`, `labels`, perhaps `loss_scale`, and the item's number as `row`; pairs have
    these with `chosen_` and `rejected_` before, KTO rows a `label`. Every row is entered into `ledger`, which is
    closed when all are known. Raises SwiftError when the data cannot be read or too little of it can be used.
    """
    if not plan.train and not plan.val:
        raise SwiftError("no data set", next="--dataset FILE, name or hub id")
    recipe = Recipe(plan.kind, encoder, plan.rounds, plan.check == "discard")
    try:
        train, val = encode_all(plan, recipe, ledger)
    finally:
        ledger.close()
        ledger.report()
    return Built(train, val)
