"""Rows of data files one after another, each with its line: JSONL, JSON, CSV, Parquet and text, plain or compressed.

A row leaves here as JSON bytes, undecoded: cheap to hash, to send to another process and to find again by its offset.
What cannot be read becomes a row with a fault, and the file goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from swift.core.errors import SwiftError
from swift.data.compression import DAMAGE, damaged, is_compressed, open_file, refuse_unreadable
from swift.data.raw_row import RawRow, dumped
from swift.data.read_json_list import json_list
from swift.data.read_tables import read_csv, read_parquet
from swift.plan.data import FILE_SUFFIXES, without_compression

BOM = b"\xef\xbb\xbf"


def suffix(path: Path) -> str | None:
    """What kind of data file this is by its name, whether compressed or not; None for anything else."""
    name = without_compression(path.name.lower())
    return next((known for known in FILE_SUFFIXES if name.endswith(known)), None)


def seekable(path: Path) -> bool:
    """Whether rows can be found again by their byte offset."""
    return not is_compressed(path) and suffix(path) in (".jsonl", ".json", None) and _layout(path) == "lines"


def read_rows(path: Path, *, offset: int = 0, line: int = 1, media: Path | None = None) -> Iterator[RawRow]:
    """Every row of the file, in order; a seekable file can be entered at the `offset` and `line` of a row.

    Pictures inside the rows are written to files in the folder `media`; without one they are left out.

    Raises SwiftError for a file that is missing or of no known kind; faults of single rows come with the row.
    """
    if not path.is_file():
        raise SwiftError(f"no such file: {path}", where=str(path), next="check the path")
    refuse_unreadable(path)
    kind = suffix(path)
    if kind == ".parquet":
        yield from read_parquet(path, media)
    elif kind in (".csv", ".tsv"):
        yield from read_csv(path, "\t" if kind == ".tsv" else None)
    elif kind == ".txt":
        yield from _text(path)
    elif _layout(path) == "array":
        yield from json_list(path)
    else:
        yield from _json_lines(path, offset, line)


def read_at(path: Path, offsets: list[int]) -> Iterator[bytes]:
    """The payloads at these offsets of a seekable file."""
    with path.open("rb") as file:
        for offset in offsets:
            file.seek(offset)
            yield _bare(file.readline())


def _layout(path: Path) -> str:
    """`array` for one JSON list or objects over several lines, `lines` for one value a line."""
    with open_file(path) as file:
        try:
            head = file.read1(65536).removeprefix(BOM).lstrip()
        except DAMAGE:
            return "lines"  # reading the rows says what is wrong
    first, _, rest = head.partition(b"\n")
    if first.strip() == b"{":
        return "array"
    return "array" if first[:1] == b"[" and not (rest.strip() and _is_json(first)) else "lines"


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _bare(line: bytes) -> bytes:
    return line.removeprefix(BOM).strip()


def _json_lines(path: Path, offset: int, number: int) -> Iterator[RawRow]:
    for row in _lines(path, offset, number):
        payload = row.payload if row.fault else _bare(row.payload)
        if payload:
            yield row._replace(payload=payload)


def _text(path: Path) -> Iterator[RawRow]:
    """Pre-training text, one row a line that is not blank; its spaces are part of it."""
    for row in _lines(path, 0, 1):
        if row.fault:
            yield row
        elif not row.payload.isspace():
            line = row.payload.removesuffix(b"\n").removesuffix(b"\r")
            yield row._replace(payload=dumped({"text": line.decode("utf-8", "surrogateescape")}))


def _lines(path: Path, offset: int, number: int) -> Iterator[RawRow]:
    """The lines of a file with their ends, from one on."""
    with open_file(path) as file:
        file.seek(offset)
        try:
            for line in file:
                yield RawRow(number, line.removeprefix(BOM) if offset == 0 else line, offset)
                offset += len(line)
                number += 1
        except DAMAGE as broken:
            yield RawRow(number, str(broken).encode(), offset, damaged(broken))
