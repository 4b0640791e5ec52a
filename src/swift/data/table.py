"""Every row of a data set with its place, its fate and its side: the middle of the road from files to examples."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.data.ledger import Entry, Ledger, Status, bad_row_error
from swift.data.preprocess import Chunk, Recipe, chunks
from swift.data.sample_and_split import Indices, choose, choose_val
from swift.data.shard import KEPT, TRUNCATED, UNENCODED, UNUSABLE, Shard
from swift.data.source import SourceFile, open_source
from swift.data.token_cache import TokenCache
from swift.data.workers import Progress, encode_chunks
from swift.plan.data import Check, DataPlan, DatasetSpec

STATUS: dict[int, Status] = {KEPT: "kept", TRUNCATED: "truncated", UNUSABLE: "dropped", UNENCODED: "dropped"}
WARNINGS = 20
"""Rows that needed mending of which `--check_dataset_strategy warning` speaks one by one."""


@dataclass(frozen=True)
class Table:
    """The rows of one data set, as arrays with one entry a row, in the order of its files.

    `place` (R, 2) says in which shard a row lies and where in it; -1 for a row that was not encoded.
    """

    name: str
    files: Sequence[SourceFile]
    shards: Sequence[Shard]
    file: NDArray[np.int32]
    index: NDArray[np.int64]
    """Row number inside the file, from 0."""
    line: NDArray[np.int64]
    offset: NDArray[np.int64]
    fate: NDArray[np.uint8]
    place: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.line)

    @property
    def usable(self) -> Indices:
        """Rows that convert, whether or not they give an example."""
        return np.flatnonzero(self.fate != UNUSABLE)


def tabulate(
    name: str,
    files: Sequence[SourceFile],
    recipe: Recipe,
    plan: DataPlan,
    cache: TokenCache | None,
    wanted: Sequence[NDArray[np.bool_]] | None = None,
) -> Table:
    """Convert, and with an encoder encode, the rows of all files (of each file, those `wanted` marks by their index).

    Raises SwiftError at the first bad row of a strict run.
    """
    shards: list[Shard] = []
    columns: list[list[NDArray[Any]]] = [[], [], [], [], [], []]
    progress = Progress(f"{name}: {'encoded' if recipe.encoder else 'read'}")
    numbers = {file.path: number for number, file in enumerate(files)}
    work = itertools.chain.from_iterable(
        chunks(file, wanted[number] if wanted is not None else None) for number, file in enumerate(files)
    )
    # Media are fetched over the network, which a forked process should not use: locks of the parent may be taken.
    num_proc = 1 if plan.media else plan.num_proc
    for chunk, shard in encode_chunks(work, recipe, num_proc=num_proc, cache=cache):
        _object(chunk, shard, plan, again=wanted is not None)
        size = len(chunk.rows)
        for column, values in zip(
            columns,
            (
                np.full(size, numbers[chunk.file.path], dtype=np.int32),
                np.asarray(chunk.indices, dtype=np.int64),
                np.fromiter((row.line for row in chunk.rows), dtype=np.int64, count=size),
                np.fromiter((row.offset for row in chunk.rows), dtype=np.int64, count=size),
                shard.fate,
                np.stack([np.full(size, len(shards)), np.arange(size)], axis=1).astype(np.int32),
            ),
            strict=True,
        ):
            column.append(values)
        shards.append(shard)
        progress.add(size)
    if wanted is None:
        _say_formats(name, shards)
    empty = [np.zeros(0, np.int32), *[np.zeros(0, np.int64)] * 3, np.zeros(0, np.uint8), np.zeros((0, 2), np.int32)]
    arrays = [np.concatenate(found) if found else none for found, none in zip(columns, empty, strict=True)]
    return Table(name, files, shards, *arrays)


def _object(chunk: Chunk, shard: Shard, plan: DataPlan, *, again: bool) -> None:
    """Stop at a bad row when the run is strict, and speak of rows that needed mending, unless they are read `again`."""
    if plan.strict and shard.faults:
        row, (reason, detail) = min(shard.faults.items())
        raise bad_row_error(Entry(chunk.file.label, chunk.rows[row].line, "dropped", reason, detail))
    if not again:
        for row, note in sorted(shard.notes.items()):
            speak_of(note, f"{chunk.file.label}:{chunk.rows[row].line}", plan.check)


def speak_of(note: str, where: str, check: Check) -> None:
    """Say that a row needed mending, or stop, as `--check_dataset_strategy` asks. Raises SwiftError."""
    if check == "error":
        raise SwiftError(note, where=where, next="mend the row, or use --check_dataset_strategy warning")
    if check == "warning":
        _warn(where, note)


_warned: Counter[str] = Counter()


def _warn(where: str, note: str) -> None:
    _warned[note] += 1
    if _warned[note] <= WARNINGS:
        log.warning("%s: %s", where, note)
    elif _warned[note] == WARNINGS + 1:
        log.warning("%s: in more rows, see the ledger", note)


def _say_formats(name: str, shards: Sequence[Shard]) -> None:
    formats: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    unused: set[str] = set()
    for shard in shards:
        formats.update(shard.formats)
        notes.update(shard.notes.values())
        unused.update(shard.unused)
    if formats:
        found = ", ".join(f"{format_} ({rows} rows)" for format_, rows in formats.most_common())
        log.info("%s: format %s%s", name, found, f"; keys not used: {', '.join(sorted(unused))}" if unused else "")
    elif not any(len(shard.fate) for shard in shards):
        log.warning("%s: there are no rows in it", name)
    for note, rows in notes.most_common():
        log.info("%s: %s (%d rows)", name, note, rows)


@dataclass(frozen=True)
class Part:
    """One data set with the rows chosen from it: indices into its table, repeated where rows are."""

    table: Table
    train: Indices
    val: Indices


def open_part(
    spec: DatasetSpec,
    plan: DataPlan,
    recipe: Recipe,
    cache: TokenCache | None = None,
    *,
    validation: bool = False,
) -> Part:
    """Read a data set and choose its rows; with an encoder, the chosen rows are encoded.

    A data set that is used whole is encoded in one go; for a sample its rows are first converted only, to know from
    which to choose.
    """
    files = open_source(spec, plan)
    whole = spec.sample < 0 or recipe.encoder is None
    first = recipe if whole else replace(recipe, encoder=None)
    table = tabulate(spec.text, files, first, plan, cache if whole or cache is None else cache_for(plan, first))
    usable = table.usable
    if validation:
        train, val = usable[:0], usable[choose_val(len(usable), spec.sample, plan.seed, spec.text)]
    else:
        train, val = (
            usable[chosen] for chosen in choose(len(usable), spec.sample, plan.test_ratio, plan.seed, spec.text)
        )
    if not whole:
        table = _encode_chosen(table, np.union1d(train, val), recipe, plan, cache)
    return Part(table, train, val)


def _encode_chosen(table: Table, chosen: Indices, recipe: Recipe, plan: DataPlan, cache: TokenCache | None) -> Table:
    """The table with its chosen rows encoded, the others left as they are."""
    wanted = []
    for number in range(len(table.files)):
        mine = chosen[table.file[chosen] == number]
        mask = np.zeros(int(table.index[table.file == number].max(initial=-1)) + 1, dtype=np.bool_)
        mask[table.index[mine]] = True
        wanted.append(mask)
    encoded = tabulate(table.name, table.files, recipe, plan, cache, wanted)
    fate, place = table.fate.copy(), np.full_like(table.place, -1)
    fate[chosen], place[chosen] = encoded.fate, encoded.place + np.array([len(table.shards), 0], np.int32)
    bad = np.flatnonzero(table.fate == UNUSABLE)
    place[bad] = table.place[bad]
    return replace(table, shards=[*table.shards, *encoded.shards], fate=fate, place=place)


def cache_for(plan: DataPlan, recipe: Recipe) -> TokenCache | None:
    """The part of the token cache that holds the shards of a recipe."""
    if plan.cache is None:
        return None
    about = (
        f"{recipe.encoder.template_type}, {recipe.kind}" if recipe.encoder else f"which rows can be used, {recipe.kind}"
    )
    cache = TokenCache(plan.cache, recipe.fingerprint, about)
    cache.describe()
    return cache


def account(part: Part, ledger: Ledger) -> None:
    """Enter every row of a data set into the ledger."""
    table = part.table
    side = np.zeros(len(table), dtype=np.int8)
    side[part.train] = 1
    side[part.val] = 2
    labels = [file.label for file in table.files]
    left_out = 0
    rows = zip(
        table.file.tolist(), table.line.tolist(), table.fate.tolist(), table.place.tolist(), side.tolist(), strict=True
    )
    for file, line, fate, (number, row), split in rows:
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
    )
