"""What is wrong with a row, in the words the ledger and the log use."""

from __future__ import annotations

import json
from typing import Any

SAMPLE = 80
"""Characters of a bad value that are shown."""


class BadRow(Exception):
    """A row that cannot be used: a short `reason` to count by, and what was expected where.

    `key` is the path of the field inside the row (`messages[2].role`).
    """

    def __init__(self, reason: str, *, key: str | None = None, expected: str | None = None, value: Any = None):
        super().__init__(reason)
        self.reason = reason
        self.key = key
        self.expected = expected
        self.value = sample(value)

    @property
    def detail(self) -> str:
        """Key, expectation and a sample of the value in one line."""
        where = f"{self.key}: " if self.key else ""
        if not self.expected:
            return f"{where}{self.value}"
        return f"{where}expected {self.expected}, got {self.value}"

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.reason, self.key, self.expected, self.value)


def _rebuild(reason: str, key: str | None, expected: str | None, value: str) -> BadRow:
    fault = BadRow(reason, key=key, expected=expected)
    fault.value = value
    return fault


def sample(value: Any) -> str:
    """The value as short JSON on one line."""
    if isinstance(value, bytes):
        text = repr(value[: 2 * SAMPLE])[1:]
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SAMPLE else f"{text[: SAMPLE - 1]}…"
