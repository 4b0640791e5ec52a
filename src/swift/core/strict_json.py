"""JSON as people write it: `json` keeps the last of several equal keys, and says nothing."""

from __future__ import annotations

import json
from typing import Any


class RepeatedKey(ValueError):
    """A key that stands twice in one object."""

    def __init__(self, key: str):
        super().__init__(f"the key {json.dumps(key, ensure_ascii=False)} stands twice")
        self.key = key


def unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs, as an `object_pairs_hook`. Raises RepeatedKey."""
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        raise RepeatedKey(next(key for number, key in enumerate(keys) if key in keys[:number]))
    return mapping


def read_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError alone, which says in one line what is wrong."""
    try:
        return json.loads(text, object_pairs_hook=unrepeated)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
