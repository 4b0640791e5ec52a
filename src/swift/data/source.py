"""A source of rows: files one after another, each gone through once; a row seen before is had again by its place."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import os
import shutil
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from swift.core.hubs import HubName
from swift.data.raw_row import RawRow
from swift.data.read import read_at, read_rows, seekable
from swift.prompts.bad_row import BadRow


@dataclass(frozen=True)
class SourceFile:
    """One file of a data set, how its columns become rows, and how the ledger calls it."""

    path: Path
    label: str
    converter: str | Callable[..., Any] = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    """For the converter."""
    replace: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Marks in the text and what they become: (Chinese, English), for the rows about the model itself."""
    home: tuple[HubName, str] | None = None
    """The hub and the repository that the file comes from."""
    media: Path | None = None
    """Folder for what the rows show besides text; None leaves it out, and nothing of it is fetched."""
    token: str | None = field(default=None, repr=False)
    """For media of a private repository."""

    @property
    def reading(self) -> str:
        """Everything besides the row's bytes that decides what a row means."""
        how = self.converter
        name = how if isinstance(how, str) else f"{how.__module__}:{how.__qualname__}:{hash_of(how)}"
        columns, options, replace = (sorted(table.items()) for table in (self.columns, self.options, self.replace))
        return repr((name, columns, options, replace, *(["with media"] if self.media else [])))


def hash_of(function: Callable[..., Any]) -> str:
    """Changes with the code of a user's own converter."""
    try:
        return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]
    except (OSError, TypeError):
        return "no source"


class Place(NamedTuple):
    """Where a row is: number of its file, its number in the file from 0, byte offset, line."""

    file: int
    row: int
    offset: int
    line: int


START = Place(0, 0, 0, 1)


class SourceRow(NamedTuple):
    """A row before anything is known of it: its bytes, or what was wrong with reading them, and its place."""

    payload: bytes
    fault: BadRow | None
    source: SourceFile
    place: Place

    @property
    def where(self) -> str:
        """`file:line`."""
        return f"{self.source.label}:{self.place.line}"


class RowSource:
    """The rows of some files, one file after another.

    With `again` rows can be fetched by their place at any time: rows of a file that cannot be entered in the middle
    (compressed, CSV, Parquet, a JSON list) are copied as they are read, into a folder that goes when this object does.
    """

    def __init__(self, files: Sequence[SourceFile], *, again: bool = False):
        self.files = list(files)
        self._copies: list[_Copy | None] = [None] * len(self.files)
        self._folder: Path | None = None
        self._again = again
        self._seekable: dict[int, bool] = {}

    def rows(self, start: Place = START) -> Iterator[SourceRow]:
        """Every row from a place on. Raises SwiftError for a file that cannot be read."""
        for number in range(start.file, len(self.files)):
            yield from self.rows_of(number, start if number == start.file else None)

    def rows_of(self, number: int, start: Place | None = None) -> Iterator[SourceRow]:
        """The rows of one file, from a place in it on."""
        file, first = self.files[number], 0
        rows: Iterator[RawRow]
        if start is not None and self._can_seek(number):
            rows, first = read_rows(file.path, offset=start.offset, line=start.line), start.row
        else:
            rows = read_rows(file.path, media=file.media)
        copy = self._copy_of(number) if self._again and start is None else None
        for index, row in enumerate(rows, first):
            if copy is not None:
                copy.add(row.payload)
            if start is None or index >= start.row:
                yield SourceRow(row.payload, row.fault, file, Place(number, index, row.offset, row.line))
        if copy is not None:
            copy.end()

    def fetch(self, places: Iterable[Place]) -> Iterator[SourceRow]:
        """The rows at these places again, which are in their order."""
        for number, group in itertools.groupby(places, key=lambda place: place.file):
            wanted, file, copy = list(group), self.files[number], self._copies[number]
            faults: list[BadRow | None] = [None] * len(wanted)
            if copy is not None:
                payloads: Iterable[bytes] = copy.get(place.row for place in wanted)
            elif self._can_seek(number):
                payloads = read_at(file.path, [place.offset for place in wanted])
            else:
                numbers = {place.row for place in wanted}
                rows = [row for index, row in enumerate(read_rows(file.path, media=file.media)) if index in numbers]
                payloads, faults = [row.payload for row in rows], [row.fault for row in rows]
            for place, payload, fault in zip(wanted, payloads, faults, strict=True):
                yield SourceRow(payload, fault, file, place)

    def _can_seek(self, number: int) -> bool:
        if number not in self._seekable:
            path = self.files[number].path
            self._seekable[number] = path.is_file() and seekable(path)
        return self._seekable[number]

    def _copy_of(self, number: int) -> _Copy | None:
        if self._can_seek(number) or self._copies[number] is not None:
            return None
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="swift-rows-"))
            weakref.finalize(self, _remove, self._folder, os.getpid())
        self._copies[number] = _Copy(self._folder / str(number))
        return self._copies[number]


class _Copy:
    """The payloads of a file end to end, and where each ends."""

    def __init__(self, path: Path):
        self._path = path
        self._ends = array("q", [0])
        self._file: Any = path.open("wb")

    def add(self, payload: bytes) -> None:
        self._file.write(payload)
        self._ends.append(self._ends[-1] + len(payload))

    def end(self) -> None:
        self._file.close()
        self._file = None  # worker processes get this object without an open file

    def get(self, rows: Iterable[int]) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            for row in rows:
                file.seek(self._ends[row])
                yield file.read(self._ends[row + 1] - self._ends[row])


def _remove(folder: Path, owner: int) -> None:
    """Remove the copies with their source; a worker process that dies leaves them to the process that made them."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
