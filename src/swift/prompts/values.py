"""Readers of single values that people wrote: texts and lists. Each says what it expected."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from swift.prompts.bad_row import BadRow


def text(value: Any, key: str, *, empty: bool = False) -> str:
    """Text that says something (or nothing, when `empty` is allowed). Raises BadRow for all else."""
    if isinstance(value, str):
        if empty or (value and not value.isspace()):
            return value
        raise BadRow("empty value", key=key, expected="some text", value=value)
    if value is None:
        raise BadRow("empty value", key=key, expected="some text", value=None)
    raise BadRow("wrong type", key=key, expected="text", value=value)


def optional_text(row: Mapping[str, Any], key: str) -> str | None:
    """The text under `key`, None when it is absent or null."""
    value = row.get(key)
    return None if value is None else text(value, key, empty=True)


def literal(value: Any, key: str, expected: str) -> Any:
    """A list or dict that may have been written as JSON or Python text inside one cell."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except ValueError:
        pass
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise BadRow("wrong type", key=key, expected=expected, value=value) from None


def a_list(value: Any, key: str) -> list[Any]:
    """A list, perhaps written as text. Raises BadRow for anything else; null counts as empty."""
    value = literal(value, key, "a list")
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise BadRow("wrong type", key=key, expected="a list", value=value)
    return list(value)
