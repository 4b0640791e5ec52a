"""Log lines for people: plain text on standard error, from the first process only."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stderr(logging.StreamHandler):
    """Looks standard error up at each line, so that a caller who redirects it gets the lines."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


log = logging.getLogger("swift")
log.propagate = False
log.setLevel(logging.INFO if os.environ.get("RANK", "").strip() in ("", "0") else logging.ERROR)
_handler = _Stderr()
_handler.setFormatter(logging.Formatter("[%(levelname)s:swift] %(message)s"))
log.addHandler(_handler)

# It warns of an optional kernel whenever PEFT imports it, and of a cast at every single 8 bit product.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

_given: set[str] = set()


def once(message: str, *, level: int = logging.WARNING, example: str | None = None) -> None:
    """Log `message` the first time a command comes across it, with its first `example`."""
    if message not in _given and log.isEnabledFor(level):
        _given.add(message)
        message += "" if example is None else f", such as {example}"
        log.log(level, message)


def another_command() -> None:
    """A command begins in a process that has run others: what they were told once is news to it."""
    _given.clear()


@contextmanager
def muted() -> Iterator[None]:
    """Leave out what is no error, inside."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
