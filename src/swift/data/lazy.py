"""Rows become tokens when they are asked for. Before that they are only read once, to know which can be used."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.data.bad_row import BadRow
from swift.data.eager import nothing_left
from swift.data.formats import Converted
from swift.data.ledger import Entry, Ledger
from swift.data.packing import join
from swift.data.preprocess import Made, Recipe, encode_rows, read_row
from swift.data.read import RawRow, read_at, read_rows, seekable
from swift.data.sample_and_split import Indices
from swift.data.source import SourceFile
from swift.data.table import Part, account, open_part
from swift.plan.data import DataPlan

TRIED = 16
"""Rows that are encoded at the start, to see whether anything is trained at all."""


class RowStore:
    """Payloads of a file by row, without holding them: in the file itself, or in a copy where rows cannot be found."""

    def __init__(self, file: SourceFile, folder: Path):
        self.path = file.path
        self.copied = not seekable(file.path)
        if self.copied:
            self.path = folder / f"{len(list(folder.iterdir()))}.jsonl"
            offsets = [0]
            with self.path.open("wb") as copy:
                for row in read_rows(file.path, media=file.media):
                    offsets.append(offsets[-1] + copy.write(row.payload.replace(b"\n", b" ") + b"\n"))
            self.offsets = np.array(offsets, dtype=np.int64)

    def get(self, index: int, line: int, offset: int) -> RawRow:
        """The row with this index in the file; `line` and `offset` are those of the file."""
        start = int(self.offsets[index]) if self.copied else offset
        return RawRow(line, next(read_at(self.path, [start])), offset)


class LazyDataset:
    """Rows by index, encoded on access. A row that gives no example is said, and replaced by the next one."""

    lengths = None
    """Not known before the rows are encoded."""

    def __init__(self, parts: Sequence[Part], chosen: Sequence[Indices], recipe: Recipe, ledger: Ledger):
        self._recipe = recipe
        self._ledger = ledger
        folder = Path(tempfile.mkdtemp(prefix="swift-rows-"))
        weakref.finalize(self, _remove, folder, os.getpid())
        self._files = [file for part in parts for file in part.table.files]
        self._stores = [RowStore(file, folder) for file in self._files]
        places = [np.zeros((0, 4), dtype=np.int64)]
        before = 0
        for part, rows in zip(parts, chosen, strict=True):
            table = part.table
            columns = [table.file[rows] + before, table.index[rows], table.line[rows], table.offset[rows]]
            places.append(np.stack(columns, axis=1).astype(np.int64))
            before += len(table.files)
        self._places = np.concatenate(places)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        for step in range(len(self)):
            number = (index + step) % len(self)
            made = self.encode(number)
            if isinstance(made, Made):
                items = [{**example, "row": number} for example in made.examples]
                return items[0] if len(items) == 1 else join(items)
            self._ledger.late(self._entry(number, made))
        raise SwiftError("no row gives anything to train on")

    def read(self, index: int) -> Converted:
        """A row as it is before encoding. Raises BadRow."""
        file, row, line, offset = (int(value) for value in self._places[index])
        return read_row(self._stores[file].get(row, line, offset), self._files[file], self._recipe)

    def encode(self, index: int) -> Made | BadRow:
        """The examples of a row, or why it has none."""
        try:
            return encode_rows([self.read(index).row], self._recipe)[0]
        except BadRow as fault:
            return fault

    def origin(self, index: int) -> str:
        """`file:line` of a row."""
        file, _, line, _ = self._places[index]
        return f"{self._files[file].label}:{line}"

    def _entry(self, index: int, fault: BadRow) -> Entry:
        source, _, line = self.origin(index).rpartition(":")
        return Entry(source, int(line), "dropped", fault.reason, fault.detail)


def _remove(folder: Path, owner: int) -> None:
    """Remove the copies with their data set; a worker process that dies leaves them to the process that made them."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def encode_later(plan: DataPlan, recipe: Recipe, ledger: Ledger) -> tuple[LazyDataset, LazyDataset | None]:
    """Training and validation rows. Raises SwiftError when too few can be read, or the first ones train nothing."""
    reading = Recipe(recipe.kind, None, recipe.rounds, recipe.notes_are_faults)
    parts = [open_part(spec, plan, reading) for spec in plan.train]
    parts += [open_part(spec, plan, reading, validation=True) for spec in plan.val]
    for part in parts:
        account(part, ledger)
    ledger.judge(encoded=False)
    train = LazyDataset(parts, [part.train for part in parts], recipe, ledger)
    val = LazyDataset(parts, [part.val for part in parts], recipe, ledger)
    if not len(train):
        raise nothing_left(ledger)
    tried = [train.encode(number) for number in range(min(TRIED, len(train)))]
    if tried and all(isinstance(made, BadRow) for made in tried):
        fault = tried[0]
        raise SwiftError(f"none of the first {len(tried)} rows can be used: {fault}", where=train.origin(0))
    log.info("rows are encoded when they are needed: train %d, val %d", len(train), len(val))
    return train, val if len(val) else None
