"""All rows become tokens before training, and every row is accounted for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.data.dataset import EncodedDataset, length_report
from swift.data.ledger import Ledger
from swift.data.preprocess import Recipe
from swift.data.sample_and_split import take
from swift.data.shard import KEPT, TRUNCATED, Shard
from swift.data.table import Part, account, cache_for, open_part
from swift.data.token_cache import TokenCache
from swift.plan.data import DataPlan


def encode_all(plan: DataPlan, recipe: Recipe, ledger: Ledger) -> tuple[EncodedDataset, EncodedDataset | None]:
    """Training and validation examples; validation is None when no row is on that side.

    Raises SwiftError when too few rows can be used.
    """
    parts = open_parts(plan, recipe)
    for part in parts:
        account(part, ledger)
    ledger.judge()
    train = examples_of(parts, [part.train for part in parts])
    if not len(train):
        raise nothing_left(ledger)
    val = examples_of(parts, [part.val for part in parts])
    for name, dataset in (("train", train), ("val", val)):
        if len(dataset):
            log.info("%s %s", name, length_report(dataset.lengths))
    return train, val if len(val) else None


def nothing_left(ledger: Ledger) -> SwiftError:
    """The error of a run whose usable rows are all for validation."""
    return SwiftError(
        "no row is left to train on",
        why=f"all that can be used are for validation ({ledger.summary()})",
        next="lower --dataset_test_ratio, or mend the rows of --dataset",
    )


def open_parts(plan: DataPlan, recipe: Recipe) -> list[Part]:
    """Every data set of the run with its chosen rows, in the order of the run."""
    cache = cache_for(plan, recipe)
    parts = [open_part(spec, plan, recipe, cache) for spec in plan.train]
    parts = _resampled(parts, plan)
    if plan.mix:
        parts += _mixed_in(parts, plan, recipe, cache)
    parts += [open_part(spec, plan, recipe, cache, validation=True) for spec in plan.val]
    if cache:
        size, found, asked = cache.size() / 2**20, cache.rows["found"], cache.rows["asked"]
        log.info(
            "token cache: %s, %.1f MiB; %d of %d rows were in it (--no_cache true does without it)",
            cache.home,
            size,
            found,
            asked,
        )
    return parts


def _resampled(parts: list[Part], plan: DataPlan) -> list[Part]:
    """The parts after the deprecated `train_dataset_sample` and `val_dataset_sample`, which count over all of them."""
    train, val = plan.train_sample, plan.val_sample if plan.val_sample is not None else -1
    if train < 0 and val < 0:
        return parts
    random = np.random.RandomState(plan.seed)
    return [
        Part(part.table, trained, held_back)
        for part, trained, held_back in zip(
            parts,
            _share([part.train for part in parts], train, random),
            _share([part.val for part in parts], val, random),
            strict=True,
        )
    ]


def _share(chosen: Sequence[np.ndarray], count: int, random: np.random.RandomState) -> list[np.ndarray]:
    """`count` rows of all parts together (-1: all), each part keeping those of its own that were drawn."""
    sizes = [len(rows) for rows in chosen]
    if count < 0:
        return list(chosen)
    drawn = take(np.arange(sum(sizes)), count, random)
    starts = np.cumsum([0, *sizes])
    return [
        rows[drawn[(drawn >= low) & (drawn < high)] - low]
        for rows, low, high in zip(chosen, starts[:-1], starts[1:], strict=True)
    ]


def _mixed_in(parts: list[Part], plan: DataPlan, recipe: Recipe, cache: TokenCache | None) -> list[Part]:
    """General data sets for the deprecated `train_dataset_mix_ratio`: so many rows for each training row."""
    rows = int(sum(len(part.train) for part in parts) * plan.mix_ratio)
    shares = [rows // len(plan.mix) + (number < rows % len(plan.mix)) for number in range(len(plan.mix))]
    alone = replace(plan, test_ratio=0.0)
    return [
        open_part(replace(spec, sample=share), alone, recipe, cache)
        for spec, share in zip(plan.mix, shares, strict=True)
    ]


def examples_of(parts: Sequence[Part], chosen: Sequence[np.ndarray]) -> EncodedDataset:
    """The examples of the chosen rows of all parts, in order; a row that gives several has them side by side."""
    shards: list[Shard] = []
    names: list[str] = []
    places, origins = [np.zeros((0, 2), np.int32)], [np.zeros((0, 2), np.int64)]
    for part, rows in zip(parts, chosen, strict=True):
        table = part.table
        rows = rows[np.isin(table.fate[rows], (KEPT, TRUNCATED))]
        first = np.zeros(len(rows), dtype=np.int64)
        several = np.zeros(len(rows), dtype=np.int64)
        number, within = table.place[rows].T if len(rows) else (rows, rows)
        for shard in np.unique(number):
            mine = number == shard
            first[mine] = table.shards[shard].first_example[within[mine]]
            several[mine] = table.shards[shard].examples[within[mine]]
        step = np.arange(several.sum()) - np.repeat(np.cumsum(several) - several, several)
        example = np.repeat(first, several) + step
        places.append(np.stack([np.repeat(number, several) + len(shards), example], axis=1).astype(np.int32))
        origin = [np.repeat(table.file[rows], several) + len(names), np.repeat(table.line[rows], several)]
        origins.append(np.stack(origin, axis=1).astype(np.int64))
        shards += table.shards
        names += [file.label for file in table.files]
    return EncodedDataset(shards, np.concatenate(places), np.concatenate(origins), names)
