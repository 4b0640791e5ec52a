"""Files of rows, compressed or not; what no row can be read from is named for what it is."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swift.core.errors import SwiftError
from swift.prompts.bad_row import BadRow

Opened = gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile | io.BufferedReader
OPENERS: dict[str, tuple[bytes, Callable[..., Any]]] = {
    ".gz": (b"\x1f\x8b", gzip.open),
    ".bz2": (b"BZh", bz2.open),
    ".xz": (b"\xfd7zXZ\0", lzma.open),
}
"""First bytes of a compressed file, and what opens it."""
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""What reading a damaged file raises."""
UNREADABLE = {
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unpack it: zstd -d"),
    b"\x04\x22\x4d\x18": ("compressed with lz4", "unpack it: lz4 -d"),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "unpack it, or save the sheet as CSV"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it"),
    b"Rar!": ("a rar archive", "unpack it"),
    b"\xd0\xcf\x11\xe0": ("an old Office document", "save the sheet as CSV"),
    b"ARROW1": ("an Arrow file", "write it as Parquet: datasets.Dataset.from_file(FILE).to_parquet(…)"),
    b"SQLite format 3": ("an SQLite database", "write the rows as JSONL or CSV"),
    b"\xff\xfe": ("UTF-16 text", "make it UTF-8: iconv -f UTF-16 -t UTF-8"),
    b"\xfe\xff": ("UTF-16 text", "make it UTF-8: iconv -f UTF-16 -t UTF-8"),
}
"""First bytes of files that hold no rows for us: what they are, and a way on."""
TAR = slice(257, 262)


def open_file(path: Path) -> Opened:
    """The file's bytes, unpacked where it is compressed, whether its name says so or not."""
    opener = next((opener for ending, (_, opener) in OPENERS.items() if path.name.lower().endswith(ending)), None)
    if opener is None:
        head = _head(path)
        opener = next((opener for magic, opener in OPENERS.values() if head.startswith(magic)), None)
    return path.open("rb") if opener is None else opener(path, "rb")


def is_compressed(path: Path) -> bool:
    """Whether its bytes are not those of the rows."""
    with open_file(path) as file:
        return not isinstance(file, io.BufferedReader)


def refuse_unreadable(path: Path) -> None:
    """Raise SwiftError for a file that cannot be opened, or whose first bytes say that it holds no rows."""
    try:
        with open_file(path) as file:
            head = file.read(TAR.stop)
    except PermissionError as error:
        raise SwiftError(f"{path} cannot be read: {error.strerror}", where=str(path)) from error
    except DAMAGE:
        return  # reading the rows says what is wrong, and where
    for magic, (what, next_) in UNREADABLE.items():
        if head.startswith(magic):
            raise SwiftError(f"{path} is {what}, which is not read", where=str(path), next=next_)
    if head[TAR] == b"ustar":
        raise SwiftError(f"{path} is a tar archive, which is not read", where=str(path), next="unpack it: tar xf")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def damaged(broken: Exception) -> BadRow:
    """The fault of the place where reading ended."""
    return BadRow("damaged file", expected="a whole file", value=str(broken))
