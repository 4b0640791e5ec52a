"""A row as it stands in its file: bytes, undecoded."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from swift.prompts.bad_row import BadRow


class RawRow(NamedTuple):
    """A row as it stands in its file. `line` counts from 1 (the row number in Parquet); `offset` is its first byte."""

    line: int
    payload: bytes
    offset: int
    fault: BadRow | None = None


def encoded(text: str) -> bytes:
    """The bytes of a text that was decoded with surrogates for bytes that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def dumped(row: Any) -> bytes:
    """A row as JSON bytes."""
    return encoded(json.dumps(row, ensure_ascii=False, default=_plain_value))


def _plain_value(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
