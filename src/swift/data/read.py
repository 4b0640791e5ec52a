"""Rows of data files one after another, each with its line: JSONL, JSON, CSV, Parquet and text, plain or gzipped.

A row leaves here as JSON bytes, undecoded: cheap to hash, to send to another process and to find again by its offset.
What cannot be read becomes a row with a fault, and the file goes on.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from swift.core.errors import SwiftError
from swift.data.bad_row import BadRow
from swift.data.parquet_media import taken_out
from swift.plan.data import FILE_SUFFIXES

CUT = (EOFError, gzip.BadGzipFile, zlib.error)
"""What reading a damaged gzip file raises."""
BOM = b"\xef\xbb\xbf"


class RawRow(NamedTuple):
    """A row as it stands in its file. `line` counts from 1 (the row number in Parquet); `offset` is its first byte."""

    line: int
    payload: bytes
    offset: int
    fault: BadRow | None = None


def suffix(path: Path) -> str | None:
    """What kind of data file this is by its name, without `.gz`; None for anything else."""
    name = path.name.lower().removesuffix(".gz")
    return next((known for known in FILE_SUFFIXES if name.endswith(known)), None)


def seekable(path: Path) -> bool:
    """Whether rows can be found again by their byte offset."""
    return not _gzipped(path) and suffix(path) in (".jsonl", ".json", None) and _layout(path) == "lines"


def read_rows(path: Path, *, offset: int = 0, line: int = 1, media: Path | None = None) -> Iterator[RawRow]:
    """Every row of the file, in order; a seekable file can be entered at the `offset` and `line` of a row.

    Pictures inside the rows are written to files in the folder `media`; without one they are left out.

    Raises SwiftError for a file that is missing or of no known kind; faults of single rows come with the row.
    """
    if not path.is_file():
        raise SwiftError(f"no such file: {path}", where=str(path), next="check the path")
    kind = suffix(path)
    if kind == ".parquet":
        yield from _parquet(path, media)
    elif kind in (".csv", ".tsv"):
        yield from _csv(path, "\t" if kind == ".tsv" else ",")
    elif kind == ".txt":
        yield from _text(path)
    elif _layout(path) == "array":
        yield from _json_array(path)
    else:
        yield from _json_lines(path, offset, line)


def read_at(path: Path, offsets: list[int]) -> Iterator[bytes]:
    """The payloads at these offsets of a seekable file."""
    with path.open("rb") as file:
        for offset in offsets:
            file.seek(offset)
            yield _bare(file.readline())


def _open(path: Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.open(path, "rb") if _gzipped(path) else path.open("rb")


def _gzipped(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _layout(path: Path) -> str:
    """`array` for one JSON list or objects over several lines, `lines` for one object a line."""
    with _open(path) as file:
        try:
            head = file.read1(65536).removeprefix(BOM).lstrip()
        except CUT:
            return "lines"  # reading the rows says what is wrong
    return "array" if head[:1] == b"[" or head.split(b"\n", 1)[0].strip() == b"{" else "lines"


def _damage(broken: Exception) -> BadRow:
    return BadRow("damaged file", expected="a whole gzip file", value=str(broken))


def _bare(line: bytes) -> bytes:
    return line.removeprefix(BOM).strip()


def _json_lines(path: Path, offset: int, number: int) -> Iterator[RawRow]:
    with _open(path) as file:
        if offset:
            file.seek(offset)
        try:
            for line in file:
                payload = _bare(line)
                if payload:
                    yield RawRow(number, payload, offset)
                offset += len(line)
                number += 1
        except CUT as broken:
            yield RawRow(number, str(broken).encode(), offset, _damage(broken))


def _read_text(path: Path) -> tuple[str, BadRow | None]:
    """The whole file as text; bytes that are not UTF-8 survive as surrogates, so that only their row is lost."""
    fault = None
    pieces = []
    with _open(path) as file:
        try:
            while piece := file.read1(1 << 20):
                pieces.append(piece)
        except CUT as broken:
            fault = _damage(broken)
    return b"".join(pieces).removeprefix(BOM).decode("utf-8", "surrogateescape"), fault


def _json_array(path: Path) -> Iterator[RawRow]:
    """Rows of one JSON list. After an element that does not parse, reading goes on at the next that does."""
    text, damage = _read_text(path)
    decode = json.JSONDecoder().raw_decode
    gap = re.compile(r"[\s,]*")
    listed = text.lstrip()[:1] == "["
    position = text.find("[") + 1 if listed else 0
    line, counted, whole = 1, 0, True
    while True:
        position = gap.match(text, position).end()  # type: ignore[union-attr]
        if position >= len(text) or text[position] == "]":
            break
        line += text.count("\n", counted, position)
        counted = position
        try:
            _, end = decode(text, position)
            whole = True
            yield RawRow(line, _encoded(text[position:end]), position)
        except (ValueError, RecursionError) as broken:
            whole, end = False, _next_element(text, position)
            cut = text[position:end].strip().rstrip(",")
            fault = BadRow("broken JSON", expected="a JSON value", value=f"{_reason(broken)}: {cut}")
            yield RawRow(line, _encoded(cut), position, fault)
        position = end
    ended = position < len(text)
    behind = text[position + 1 :].lstrip()
    line += text.count("\n", counted, len(text) - len(behind) if behind else position)
    if damage:
        yield RawRow(line, b"", position, damage)
    elif behind:
        fault = BadRow("broken JSON", expected="nothing behind the list", value=behind.rstrip())
        yield RawRow(line, _encoded(behind), position, fault)
    elif listed and not ended and whole:
        yield RawRow(line, b"", position, BadRow("broken JSON", expected="] at the end of the list", value=""))


def _reason(broken: Exception) -> str:
    return broken.msg if isinstance(broken, json.JSONDecodeError) else str(broken)


def _next_element(text: str, position: int) -> int:
    """Where the next object starts a line at the indentation of the broken one, or the end of the text."""
    start = text.rfind("\n", 0, position) + 1
    indent = text[start:position]
    found = text.find(f"\n{indent}{{", position) if not indent.strip() else text.find("{", position + 1)
    return found + 1 if found >= 0 else len(text)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _dumped(row: Any) -> bytes:
    return _encoded(json.dumps(row, ensure_ascii=False, default=_plain_value))


def _plain_value(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _csv(path: Path, delimiter: str) -> Iterator[RawRow]:
    csv.field_size_limit(1 << 30)
    with _open(path) as file:
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
            except CUT as broken:
                yield RawRow(before + 1, b"", 0, _damage(broken))
                return
            if cells is None:
                return
            line, before = before + 1, reader.line_num
            if names is None:
                names = _header(cells, path)
            elif len(cells) == len(names):
                yield RawRow(line, _dumped(dict(zip(names, cells, strict=True))), line)
            elif cells:
                fault = BadRow("broken CSV", expected=f"{len(names)} cells as in the header", value=cells)
                yield RawRow(line, _dumped(cells), line, fault)


def _header(names: list[str], path: Path) -> list[str]:
    """The names of the columns. Raises SwiftError when two are the same: the cells of one would be lost."""
    twice = next((name for number, name in enumerate(names) if name and name in names[:number]), None)
    if twice is not None:
        raise SwiftError(f"two columns are called {twice!r}", where=f"{path}:1", next="rename or remove one of them")
    return names


def _text(path: Path) -> Iterator[RawRow]:
    """Pre-training text, one row a line."""
    for row in _json_lines(path, 0, 1):
        text = row.payload.decode("utf-8", "surrogateescape")
        yield row if row.fault else row._replace(payload=_dumped({"text": text}))


def _parquet(path: Path, media: Path | None) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as broken:
        raise SwiftError(f"{path} is not a readable Parquet file", why=str(broken).splitlines()[0]) from broken
    carries_media = "bytes: " in str(file.schema_arrow.remove_metadata())
    number = 0
    try:
        for batch in file.iter_batches(batch_size=512):
            for row in batch.to_pylist():
                number += 1
                yield RawRow(number, _dumped(taken_out(row, media) if carries_media else row), number)
    except (pyarrow.ArrowException, OSError) as broken:
        fault = BadRow("damaged file", expected="a whole Parquet file", value=str(broken).splitlines()[0])
        for lost in range(number + 1, file.metadata.num_rows + 1):
            yield RawRow(lost, b"", lost, fault)
