"""From files to examples: a source of rows -> a preprocessor -> a store, with an account of every row.

The three ways to train (eager, lazy, streaming) differ in the store only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.data.columns import refuse_absent
from swift.data.dataset import MapDataset, length_report
from swift.data.example_index import ExampleIndex
from swift.data.ledger import Ledger
from swift.data.packing import PackedDataset
from swift.data.parts import account, open_parts
from swift.data.preprocess import Preprocessor
from swift.data.shown_rows import Rows, rows_of
from swift.plan.data import DataPlan
from swift.prompts.encode import Encoder
from swift.prompts.parity import preflight, require_known_tokens

if TYPE_CHECKING:
    from swift.data.stream import StreamDataset

__all__ = ["Built", "Ledger", "build"]


@dataclass(frozen=True)
class Built:
    """The two sides of a run's data; `val` is None when nothing is held back.

    `train` is a map-style dataset, or a `StreamDataset` when the plan asks for a stream. Both have `origin(row)`, and
    `lengths`, which is None for a stream.
    """

    train: Rows | PackedDataset | StreamDataset
    val: MapDataset | None
    first: Mapping[str, Any]
    """The first training example; that of a stream is the first of its files."""


def build(plan: DataPlan, encoder: Encoder, ledger: Ledger) -> Built:
    """Read the rows of a run, preprocess them, and put them into the store that the plan asks for.

    Items are dicts of lists: `input_ids`, `labels`, perhaps `loss_scale`, and the number of the item as `row`; pairs
    have these with `chosen_` and `rejected_` before, KTO rows a `label`, packed items `lengths` and `rows`. Every row
    is entered into `ledger`, which is closed when all are known (that of a stream stays open; its owner closes it).
    Raises SwiftError when the data cannot be read, too little of it can be used, or answers would not learn to end.
    """
    if not plan.train:
        raise SwiftError("no training data", next="--dataset FILE, a name or a hub id")
    _check_packing(plan)
    preprocess = Preprocessor(plan.kind, encoder, plan.rounds, plan.check == "discard", plan.plain_text)
    train: Rows | PackedDataset | StreamDataset
    val: MapDataset | None
    if plan.mode == "streaming":
        from swift.data.stream import open_stream  # brings torch, which nothing else here needs

        train, val = open_stream(plan, preprocess, ledger)
        first, where = train.first
    else:
        with ledger:
            train, val = _map_style(plan, preprocess, ledger)
        first, where = train[0], train.origin(0)
    require_known_tokens(encoder, first)
    if plan.kind == "chat":
        preflight(encoder, first, where)
    return Built(train, val, first)


def _map_style(
    plan: DataPlan, preprocess: Preprocessor, ledger: Ledger
) -> tuple[Rows | PackedDataset, MapDataset | None]:
    parts = open_parts(plan, preprocess, "lengths" if plan.mode == "lazy" else "tokens")
    for part in parts:
        account(part, ledger)
    ledger.judge()
    tables = [part.table for part in parts]
    refuse_absent(plan.columns, (shard for table in tables for shard in table.shards))
    sides = {"train": [part.train for part in parts], "val": [part.val for part in parts]}
    stored: list[Rows | PackedDataset] = []
    for name, chosen in sides.items():
        index = ExampleIndex(tables, chosen)
        if name == "train" and not len(index):
            raise SwiftError(
                "no row is left to train on",
                why=f"all that can be used are for validation ({ledger.summary()})",
                next="lower --dataset_test_ratio, or mend the rows of --dataset",
            )
        if not len(index):
            continue
        log.info("%s %s", name, length_report(index.lengths))
        examples = rows_of(index, preprocess, ledger, lazy=plan.mode == "lazy")
        stored.append(_packed(examples, plan, name) if plan.packing else examples)
    return stored[0], stored[1] if len(stored) > 1 else None


def _check_packing(plan: DataPlan) -> None:
    if plan.packing and plan.max_length is None:
        raise SwiftError("--packing true needs a length to fill", next="--max_length 2048")
    if plan.packing and plan.kind in ("pairs", "kto"):
        raise SwiftError("preference rows cannot be packed", next="leave out --packing")


def _packed(examples: Rows, plan: DataPlan, name: str) -> PackedDataset:
    assert plan.max_length is not None
    packed = PackedDataset(examples, plan.max_length)
    log.info("%s: packed %d rows into %d sequences, %.1f%% full", name, len(examples), len(packed), 100 * packed.fill)
    return packed
