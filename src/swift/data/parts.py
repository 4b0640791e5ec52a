"""Every data set of a run, and the rows chosen from it for each side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from swift.core.log import log
from swift.data.dataset_files import dataset_files
from swift.data.ledger import Entry, Ledger, Status
from swift.data.preprocess import Preprocessor
from swift.data.row_table import Table, Tabulator
from swift.data.sample_and_split import Indices, choose, choose_val, take
from swift.data.shard import KEPT, TRUNCATED, UNENCODED, UNUSABLE
from swift.data.source import RowSource
from swift.data.token_cache import TokenCache
from swift.data.workers import Keep
from swift.plan.data import DataPlan, DatasetSpec

STATUS: dict[int, Status] = {KEPT: "kept", TRUNCATED: "truncated", UNUSABLE: "dropped", UNENCODED: "dropped"}


@dataclass(frozen=True)
class Part:
    """One data set with the rows chosen from it: indices into its table, repeated where rows are."""

    table: Table
    train: Indices
    val: Indices


def open_parts(plan: DataPlan, preprocess: Preprocessor, keep: Keep) -> list[Part]:
    """Every data set of the run with its chosen rows, in the order of the run, and of these `keep`."""
    cache = cache_for(plan, preprocess, keep)
    tabulator = Tabulator(plan, preprocess, keep, cache)
    parts = [open_part(spec, tabulator) for spec in plan.train]
    parts += [open_part(spec, tabulator, validation=True) for spec in plan.val]
    parts = resampled(parts, plan)
    if plan.mix:
        parts += _mixed_in(parts, tabulator)
    if cache:
        log.info(
            "token cache: %s, %.1f MiB; %d of %d rows were in it (--no_cache true does without it)",
            cache.home,
            cache.size() / 2**20,
            cache.rows["found"],
            cache.rows["asked"],
        )
    return parts


def open_part(spec: DatasetSpec, tabulator: Tabulator, *, validation: bool = False) -> Part:
    """Read a data set and choose its rows; with an encoder, the chosen rows are encoded.

    A data set that is used whole is encoded in one go. For a sample all rows are converted, to know from which to
    choose, and the chosen ones are fetched again by their place.
    """
    plan, preprocess = tabulator.plan, tabulator.preprocess
    whole = spec.sample < 0 or preprocess.encoder is None
    source = RowSource(dataset_files(spec, plan), again=not whole or tabulator.keep == "lengths")
    reading = tabulator
    if not whole:
        converting = replace(preprocess, encoder=None)
        reading = replace(tabulator, preprocess=converting, cache=cache_for(plan, converting, tabulator.keep))
    table = reading.every_row(spec.text, source)
    usable = table.usable
    if validation:
        train, val = usable[:0], usable[choose_val(len(usable), spec.sample, plan.seed, spec.text)]
    else:
        train, val = (
            usable[chosen] for chosen in choose(len(usable), spec.sample, plan.test_ratio, plan.seed, spec.text)
        )
    if not whole:
        table = tabulator.chosen(table, np.union1d(train, val))
    return Part(table, train, val)


def cache_for(plan: DataPlan, preprocess: Preprocessor, keep: Keep) -> TokenCache | None:
    """The part of the token cache that holds what is kept of the outcomes of a preprocessor."""
    if plan.cache is None:
        return None
    encoder, fingerprint = preprocess.encoder, preprocess.fingerprint
    if encoder is None:
        about = f"which rows can be used, {preprocess.kind}"
    elif keep == "lengths":
        about, fingerprint = f"lengths only, {encoder.template_type}, {preprocess.kind}", f"{fingerprint}-lengths"
    else:
        about = f"{encoder.template_type}, {preprocess.kind}"
    cache = TokenCache(plan.cache, fingerprint, about)
    cache.describe()
    return cache


def resampled(parts: list[Part], plan: DataPlan) -> list[Part]:
    """The parts after the deprecated `train_dataset_sample` and `val_dataset_sample`, which count over all of them.

    None is used twice for them. Where only the first is given, the second is its share by `dataset_test_ratio`.
    """
    train, val = plan.train_sample, plan.val_sample
    if val is None:
        val = max(int(train * plan.test_ratio), 1) if train >= 0 and not plan.val else -1
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
    if count < 0 or count >= sum(sizes):
        return list(chosen)
    drawn = take(np.arange(sum(sizes)), count, random)
    starts = np.cumsum([0, *sizes])
    return [
        rows[drawn[(drawn >= low) & (drawn < high)] - low]
        for rows, low, high in zip(chosen, starts[:-1], starts[1:], strict=True)
    ]


def _mixed_in(parts: list[Part], tabulator: Tabulator) -> list[Part]:
    """General data sets for the deprecated `train_dataset_mix_ratio`: so many rows for each training row."""
    plan = tabulator.plan
    rows = int(sum(len(part.train) for part in parts) * plan.mix_ratio)
    shares = [rows // len(plan.mix) + (number < rows % len(plan.mix)) for number in range(len(plan.mix))]
    whole = replace(tabulator, plan=replace(plan, test_ratio=0.0))
    return [open_part(replace(spec, sample=share), whole) for spec, share in zip(plan.mix, shares, strict=True)]


def account(part: Part, ledger: Ledger) -> None:
    """Enter every row of a data set into the ledger."""
    table = part.table
    side = np.zeros(len(table), dtype=np.int8)
    side[part.train] = 1
    side[part.val] = 2
    labels = [file.label for file in table.source.files]
    left_out = 0
    rows = zip(table.places.tolist(), table.fate.tolist(), table.shard.tolist(), side.tolist(), strict=True)
    for (file, _, _, line), fate, (number, row), split in rows:
        if fate == UNUSABLE or split:
            ledger.add(_entry(table, labels[file], line, fate, number, row), _SIDES[split])
        else:
            left_out += 1
    ledger.leave_out(table.name, left_out)


_SIDES = (None, "train", "val")


def _entry(table: Table, label: str, line: int, fate: int, number: int, row: int) -> Entry:
    shard = table.shards[number]
    if fate in (UNUSABLE, UNENCODED):
        reason, detail = shard.faults[row]
        return Entry(label, line, "dropped", reason, detail)
    return Entry(
        label,
        line,
        STATUS[fate],
        tokens=int(shard.tokens[row]),
        trained=int(shard.trained[row]),
        examples=int(shard.examples[row]),
        note=shard.notes.get(row),
        rewrites=shard.rewrites.get(row, ()),
    )
