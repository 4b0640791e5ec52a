"""Every row of a data set with its place and its fate, and the shards of those that became examples."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.data.columns import in_words
from swift.data.formats import PLAIN_ANSWER
from swift.data.ledger import Entry, bad_row_error
from swift.data.preprocess import MEDIA_LEFT_OUT, Preprocessor
from swift.data.sample_and_split import Indices
from swift.data.shard import UNUSABLE, Shard
from swift.data.source import Place, RowSource, SourceRow
from swift.data.token_cache import TokenCache
from swift.data.unseen_media import is_about_media
from swift.data.workers import Chunk, Keep, Progress, chunks, encode_chunks
from swift.plan.data import Check, DataPlan

WARNINGS = 20
"""Rows that needed mending of which `--check_dataset_strategy warning` speaks one by one."""


def level_of(remark: str) -> int:
    """Of a remark on rows: some are warnings whatever `--check_dataset_strategy` says."""
    grave = remark in (PLAIN_ANSWER, MEDIA_LEFT_OUT) or is_about_media(remark)
    return logging.WARNING if grave else logging.INFO


@dataclass(frozen=True)
class Table:
    """The rows of one data set, as arrays with one entry a row, in the order of its files."""

    name: str
    source: RowSource
    shards: Sequence[Shard]
    places: NDArray[np.int64]
    """(R, 4), each a `Place`."""
    fate: NDArray[np.uint8]
    shard: NDArray[np.int32]
    """(R, 2): the shard that a row lies in and where in it; -1 for a row that was not encoded."""

    def __len__(self) -> int:
        return len(self.places)

    @property
    def usable(self) -> Indices:
        """Rows that convert, whether or not they give an example."""
        return np.flatnonzero(self.fate != UNUSABLE)

    def place(self, row: int) -> Place:
        """Where a row is."""
        return Place(*self.places[row].tolist())

    def origin(self, row: int) -> str:
        """`file:line` of a row."""
        place = self.place(row)
        return f"{self.source.files[place.file].label}:{place.line}"

    def fault(self, row: int) -> tuple[str, str]:
        """Reason and detail of a row that gives no example."""
        shard, within = self.shard[row].tolist()
        return self.shards[shard].faults[within]

    def fetch(self, rows: Indices) -> Iterator[SourceRow]:
        """These rows again, in rising order."""
        return self.source.fetch(Place(*place) for place in self.places[rows].tolist())


@dataclass(frozen=True)
class Tabulator:
    """How the rows of every data set of a run become tables."""

    plan: DataPlan
    preprocess: Preprocessor
    keep: Keep
    cache: TokenCache | None

    def every_row(self, name: str, source: RowSource) -> Table:
        """All rows of the source. Raises SwiftError at the first bad row of a strict run."""
        files = (chunks(source.rows_of(number)) for number in range(len(source.files)))
        table = self._table(name, source, itertools.chain.from_iterable(files), self.check)
        say_formats(name, table.shards)
        return table

    def chosen(self, table: Table, rows: Indices) -> Table:
        """The table with these rows preprocessed anew, the others left as they are."""
        of_file = table.places[rows, 0]
        files = (chunks(table.fetch(rows[of_file == number])) for number in np.unique(of_file))
        anew = self._table(table.name, table.source, itertools.chain.from_iterable(files), self._refuse)
        fate, shard = table.fate.copy(), np.full_like(table.shard, -1)
        bad = np.flatnonzero(table.fate == UNUSABLE)
        shard[bad] = table.shard[bad]
        fate[rows], shard[rows] = anew.fate, anew.shard + np.array([len(table.shards), 0], np.int32)
        return replace(table, shards=[*table.shards, *anew.shards], fate=fate, shard=shard)

    def _table(
        self, name: str, source: RowSource, work: Iterable[Chunk], check: Callable[[Chunk, Shard], None]
    ) -> Table:
        shards: list[Shard] = []
        places, fates = [np.zeros((0, 4), np.int64)], [np.zeros(0, np.uint8)]
        inside = [np.zeros((0, 2), np.int32)]
        progress = Progress(f"{name}: {'encoded' if self.preprocess.encoder else 'read'}")
        # Media are fetched over the network, which a forked process should not use: locks of the parent may be taken.
        num_proc = 1 if self.plan.media else self.plan.num_proc
        for chunk, shard in encode_chunks(work, self.preprocess, self.keep, num_proc=num_proc, cache=self.cache):
            check(chunk, shard)
            size = len(chunk.rows)
            places.append(np.array([row.place for row in chunk.rows], dtype=np.int64))
            fates.append(shard.fate)
            inside.append(np.stack([np.full(size, len(shards)), np.arange(size)], axis=1).astype(np.int32))
            shards.append(shard)
            progress.add(size)
        return Table(name, source, shards, np.concatenate(places), np.concatenate(fates), np.concatenate(inside))

    def check(self, chunk: Chunk, shard: Shard) -> None:
        """Speak of rows that needed mending, and stop at a bad row when the run is strict."""
        self._refuse(chunk, shard)
        for row, note in sorted(shard.notes.items()):
            speak_of(note, chunk.rows[row].where, self.plan.check)

    def _refuse(self, chunk: Chunk, shard: Shard) -> None:
        if self.plan.strict and shard.faults:
            row, (reason, detail) = min(shard.faults.items())
            bad = chunk.rows[row]
            raise bad_row_error(Entry(bad.source.label, bad.place.line, "dropped", reason, detail))


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


def say_formats(name: str, shards: Sequence[Shard]) -> None:
    """Say how the rows of a data set are written, what of them is not used, and what had to be mended."""
    formats: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    unused: Counter[str] = Counter()
    renamed: dict[str, str] = {}
    for shard in shards:
        formats.update(shard.formats)
        notes.update(note for joined in shard.notes.values() for note in joined.split("; "))
        unused.update(shard.unused)
        renamed.update(shard.renamed)
    if formats:
        counts = ", ".join(f"{format_} ({rows} rows)" for format_, rows in formats.most_common())
        left = ", ".join(f"{key or '(no name)'} ({rows} rows)" for key, rows in sorted(unused.items()))
        log.info("%s: format %s%s", name, counts, f"; keys not used: {left}" if left else "")
        if renamed:
            log.info("%s: columns %s", name, in_words(renamed))
    elif not any(len(shard.fate) for shard in shards):
        log.warning("%s: there are no rows in it", name)
    for note, rows in notes.most_common():
        log.log(level_of(note), "%s: %s (%d rows)", name, note, rows)
