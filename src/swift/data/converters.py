"""How the columns of registered data sets become the keys of a known format, one small function a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swift.data.source import SourceFile

Fields = dict[str, Any]


def converter(file: SourceFile) -> Callable[[Any], Any]:
    """The function that turns a record of this file into the keys of a known format."""
    return lambda row: row
