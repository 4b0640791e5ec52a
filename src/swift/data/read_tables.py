"""Rows of tables: CSV, TSV and Parquet. What a cell leaves open is absent, not a value."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swift.core.errors import SwiftError
from swift.data.compression import DAMAGE, damaged, open_file
from swift.data.parquet_media import taken_out
from swift.data.raw_row import RawRow, dumped
from swift.prompts.bad_row import BadRow


def read_csv(path: Path, delimiter: str | None = None) -> Iterator[RawRow]:
    """The records below the header, each with the line it begins on. An empty cell is null: it says nothing.

    Without a `delimiter` the header tells it.
    """
    csv.field_size_limit(1 << 30)
    delimiter = delimiter or _delimiter(path)
    with open_file(path) as file:
        lines = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
        # Without `strict` a quote that is never closed would swallow the rest of the file.
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        names: list[str] | None = None
        before = 0
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as broken:
                yield RawRow(before + 1, b"", 0, BadRow("broken CSV", expected="a CSV record", value=str(broken)))
                before = reader.line_num
                continue
            except DAMAGE as broken:
                yield RawRow(before + 1, b"", 0, damaged(broken))
                return
            if cells is None:
                return
            line, before = before + 1, reader.line_num
            if names is None:
                names = _header(cells, f"{path}:{line}") if cells else None
            elif len(cells) == len(names):
                yield RawRow(line, dumped({name: cell or None for name, cell in zip(names, cells, strict=True)}), line)
            elif cells:
                fault = BadRow("broken CSV", expected=f"{len(names)} cells as in the header", value=cells)
                yield RawRow(line, dumped(cells), line, fault)


def _delimiter(path: Path) -> str:
    """What parts the names in the header: spreadsheets of half the world write semicolons into their CSV."""
    with open_file(path) as file:
        try:
            header = next((line for line in file if line.strip()), b"")
        except DAMAGE:
            return ","  # reading the rows says what is wrong
    return next((mark for mark in (",", "\t", ";") if mark.encode() in header), ",")


def _header(names: list[str], where: str) -> list[str]:
    """The names of the columns. Raises SwiftError when two are the same: the cells of one would be lost."""
    twice = next((name for number, name in enumerate(names) if name and name in names[:number]), None)
    if twice is not None:
        raise SwiftError(f"two columns are called {twice!r}", where=where, next="rename or remove one of them")
    return names


def read_parquet(path: Path, media: Path | None) -> Iterator[RawRow]:
    """The rows of a Parquet file, each with its number. Pictures in them go to files in the folder `media`, if any."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as broken:
        raise SwiftError(f"{path} is not a readable Parquet file", why=str(broken).splitlines()[0]) from broken
    carries_media = "binary" in str(file.schema_arrow.remove_metadata())
    nested = [field.name for field in file.schema_arrow if pyarrow.types.is_nested(field.type)]
    number = 0
    try:
        for batch in file.iter_batches(batch_size=512):
            for row in batch.to_pylist():
                number += 1
                row.update((name, without_fillers(row[name])) for name in nested)
                yield RawRow(number, dumped(taken_out(row, media) if carries_media else row), number)
    except (pyarrow.ArrowException, OSError) as broken:
        fault = BadRow("damaged file", expected="a whole Parquet file", value=str(broken).splitlines()[0])
        for lost in range(number + 1, file.metadata.num_rows + 1):
            yield RawRow(lost, b"", lost, fault)


def without_fillers(value: Any) -> Any:
    """The value without the nulls inside its objects: Arrow gives each of them the fields that any other has."""
    if isinstance(value, dict):
        return {key: without_fillers(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_fillers(inner) for inner in value]
    return value
