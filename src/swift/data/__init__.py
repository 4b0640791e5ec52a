"""From the user's files to examples: reading, converting, choosing, encoding, with an account of every row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.data.dataset import EncodedDataset, MapDataset
from swift.data.eager import encode_all
from swift.data.lazy import LazyDataset, encode_later
from swift.data.ledger import Ledger
from swift.data.packing import PackedDataset
from swift.data.preprocess import Recipe
from swift.plan.data import DataPlan
from swift.prompts.encode import Encoder
from swift.prompts.parity import preflight

if TYPE_CHECKING:
    from swift.data.stream import StreamDataset

__all__ = ["Built", "Ledger", "build"]


@dataclass(frozen=True)
class Built:
    """The two sides of a run's data; `val` is None when nothing is held back.

    `train` is a map-style dataset, or a `StreamDataset` when the plan asks for a stream. Both have `origin(row)`, and
    `lengths`, which is None where rows are encoded later.
    """

    train: EncodedDataset | PackedDataset | LazyDataset | StreamDataset
    val: MapDataset | None
    first: Mapping[str, Any]
    """The first training example; that of a stream is the first of its files."""


def build(plan: DataPlan, encoder: Encoder, ledger: Ledger) -> Built:
    """Read the data of a run, and encode it unless the plan wants that later.

    Items are dicts of lists: `input_ids`, `labels`, perhaps `loss_scale`, and the number of the item as `row`; pairs
    have these with `chosen_` and `rejected_` before, KTO rows a `label`, packed items `lengths` and `rows`. Every row
    is entered into `ledger`, which is closed when all are known (that of a stream stays open; its owner closes it).
    Raises SwiftError when the data cannot be read, too little of it can be used, or answers would not learn to end.
    """
    if not plan.train:
        raise SwiftError("no training data", next="--dataset FILE, a name or a hub id")
    _check_packing(plan)
    recipe = Recipe(plan.kind, encoder, plan.rounds, plan.check == "discard")
    train: EncodedDataset | PackedDataset | LazyDataset | StreamDataset
    val: MapDataset | None
    if plan.mode == "streaming":
        from swift.data.stream import open_stream  # brings torch, which nothing else here needs

        train, val = open_stream(plan, recipe, ledger)
        first, where = train.first
    else:
        with ledger:
            train, val = _map_style(plan, recipe, ledger)
        first, where = train[0], train.origin(0)
    if plan.kind == "chat":
        preflight(encoder, first, where)
    return Built(train, val, first)


def _map_style(
    plan: DataPlan, recipe: Recipe, ledger: Ledger
) -> tuple[EncodedDataset | PackedDataset | LazyDataset, MapDataset | None]:
    if plan.mode == "lazy" and not plan.packing:
        return encode_later(plan, recipe, ledger)
    if plan.mode == "lazy":
        log.info("packing needs the length of every row: rows are encoded now")
    train, val = encode_all(plan, recipe, ledger)
    if not plan.packing:
        return train, val
    return _packed(train, plan, "train"), val and _packed(val, plan, "val")


def _check_packing(plan: DataPlan) -> None:
    if plan.packing and plan.max_length is None:
        raise SwiftError("--packing true needs a length to fill", next="--max_length 2048")
    if plan.packing and plan.kind in ("pairs", "kto"):
        raise SwiftError("preference rows cannot be packed", next="leave out --packing")


def _packed(examples: EncodedDataset, plan: DataPlan, name: str) -> PackedDataset:
    assert plan.max_length is not None
    packed = PackedDataset(examples, plan.max_length)
    log.info("%s: packed %d rows into %d sequences, %.1f%% full", name, len(examples), len(packed), 100 * packed.fill)
    return packed
