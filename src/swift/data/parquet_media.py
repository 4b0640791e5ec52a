"""Pictures and sounds inside the cells of a Parquet file: bytes alone, or as `datasets` writes them, {bytes, path}."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

LEFT_OUT = "inside:"
"""Starts the link to something inside a row that nobody will look at."""
STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"\0\0\0", b"\x1aE\xdf\xa3")
STARTS += (b"OggS", b"fLaC", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf1")
"""What files of pictures, videos and sounds begin with. Texts may be bytes in a Parquet file too, and begin with BM."""


def taken_out(value: Any, folder: Path | None) -> Any:
    """The value with a link in place of each medium in it: to a file in `folder`, or one that says it is there.

    Rows stay small that way: they are hashed, copied and sent to other processes as text.
    """
    if isinstance(value, bytes) and value.startswith(STARTS) and (value[0] > 127 or 0 in value[:32]):
        return _link(value, None, folder)
    if isinstance(value, dict):
        content = value.get("bytes")
        if isinstance(content, bytes):
            return _link(content, value.get("path"), folder)
        return {key: taken_out(inner, folder) for key, inner in value.items()}
    if isinstance(value, list):
        return [taken_out(inner, folder) for inner in value]
    return value


def _link(content: bytes, name: Any, folder: Path | None) -> str:
    name = name if isinstance(name, str) else ""
    return f"{LEFT_OUT}{name}" if folder is None else str(_kept(content, Path(name).suffix, folder))


def _kept(content: bytes, suffix: str, folder: Path) -> Path:
    """The file with this content, under the name of its hash: the same picture is kept once."""
    digest = hashlib.sha256(content).hexdigest()
    path = folder / "rows" / digest[:2] / f"{digest}{suffix}"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.replace(unfinished, path)
    return path
