"""Keywords of a Python call as flags: the names, defaults, checks and messages of the command line."""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping
from typing import Any

from swift.core.errors import SwiftError
from swift.params.argv import ParsedFlag, Reading
from swift.params.commands import Command
from swift.params.unknown_flags import unknown_flag
from swift.params.values import BadValue, Plain, from_file

SHOWN = 120
"""Characters of a value that an error shows."""


def read_keywords(command: Command, keywords: Mapping[str, Any]) -> Reading:
    """Flags by name with Python values: numbers, texts, paths, lists, mappings, booleans and None."""
    reading = Reading()
    for name, given in keywords.items():
        flag = command.flags.get(name)
        if flag is None:
            reading.unknown.append((name, unknown_flag(command, name)))
            continue
        try:
            value = from_file(flag, _raw(given))
        except BadValue as bad:
            reading.errors.append(SwiftError(f"{name} {bad.what}", where=_said(name, given), next=bad.next))
            continue
        reading.add(command, flag, ParsedFlag(value, name, None, "cli"))
    return reading


def _said(name: str, given: Any) -> str:
    text = f"{name}={given!r}"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _raw(value: Any) -> Any:
    """The value as a file of flags would hold it. Raises BadValue for what none can hold."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return Plain("true" if value else "false")
    if isinstance(value, numbers.Integral):
        return Plain(str(int(value)))
    if isinstance(value, numbers.Real):
        return Plain(repr(float(value)))
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        import json

        try:
            return json.loads(json.dumps(dict(value), default=os.fspath))
        except (TypeError, ValueError, RecursionError) as error:
            raise BadValue(f"takes what JSON can hold: {error}") from error
    if isinstance(value, list | tuple | set | frozenset):
        return [_raw(item) for item in value]
    raise BadValue(f"takes no {type(value).__name__}")
