"""Read a YAML or JSON file of flags, with the line of each, collecting every mistake on the way."""

from __future__ import annotations

import os
import re
from typing import Any

from swift.core.errors import SwiftError
from swift.params.argv import ParsedFlag, Reading
from swift.params.commands import Command
from swift.params.unknown_flags import unknown_flag
from swift.params.values import BadValue, Plain, from_file


def read_file(command: Command, path: str) -> Reading:
    """Read a YAML or JSON file of flags. Raises SwiftError for a file that is not one."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise SwiftError("the file of flags is not UTF-8 text", where=path) from error
    except OSError as error:
        raise SwiftError(f"the file of flags cannot be read: {error.strerror}", where=path) from error
    return read_text(command, path, text)


def read_text(command: Command, path: str, text: str) -> Reading:
    """Read the text of such a file; `path` says of which kind it is, and stands in messages. Raises SwiftError."""
    reading = Reading()
    lines: dict[str, int] = {}
    for key, line, raw in _entries(path, text):
        where = f"{path}:{line}"
        if key in lines:
            what = f"{where}: {key} stands twice, first in line {lines[key]}"
            reading.errors.append(SwiftError(what, next="keep one of the two"))
            continue
        lines[key] = line
        flag = command.flags.get(key.replace("-", "_"))
        if flag is None:
            hint = unknown_flag(command, key.replace("-", "_"))
            reading.unknown.append((key, SwiftError(f"{where}: {hint.what}", next=hint.next)))
            continue
        try:
            value = from_file(flag, raw)
        except BadValue as bad:
            reading.errors.append(SwiftError(f"{where}: {key} {bad.what}", next=bad.next))
            continue
        reading.add(command, flag, ParsedFlag(value, flag.name, where, "file"))
    return reading


def _entries(path: str, text: str) -> list[tuple[str, int, Any]]:
    """Key, line and raw value of each flag in the file."""
    if os.path.splitext(path)[1] == ".json":
        return _json_entries(path, text)
    from swift.params.yaml_file import entries

    return entries(path, text)


def _json_entries(path: str, text: str) -> list[tuple[str, int, Any]]:
    import json

    from swift.core.strict_json import RepeatedKey, unrepeated

    objects: list[list[tuple[str, Any]]] = []  # the outermost comes last

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        objects.append(pairs)
        return dict(pairs)

    try:
        whole = json.loads(text, object_pairs_hook=keep)
        for inner in objects[:-1]:
            unrepeated(inner)
    except RepeatedKey as error:
        where = f"{path}:{_line_of(text, error.key, 1)}"
        raise SwiftError(str(error), where=where, next="keep one of the two") from error
    except json.JSONDecodeError as error:
        raise SwiftError(f"not valid JSON: {error.msg}", where=f"{path}:{error.lineno}") from error
    except (RecursionError, ValueError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise SwiftError(f"no JSON that can be read: {why}", where=path) from error
    if not isinstance(whole, dict):
        raise SwiftError("a file of flags holds one object: {flag: value, …}", where=f"{path}:1")
    pairs = objects[-1] if whole else []
    keys = [key for key, _ in pairs]
    return [
        (key, _line_of(text, key, keys[:number].count(key)), _json_raw(value))
        for number, (key, value) in enumerate(pairs)
    ]


def _json_raw(value: Any) -> Any:
    if isinstance(value, list):
        return [_json_raw(item) for item in value]
    if isinstance(value, bool):
        return Plain(str(value).lower())
    return Plain(repr(value)) if isinstance(value, int | float) else value


def _line_of(text: str, key: str, nth: int) -> int:
    """The line on which a key stands for the nth time, counted from 0."""
    places = [match.start() for match in re.finditer(f'"{re.escape(key)}"\\s*:', text)]
    return text.count("\n", 0, places[min(nth, len(places) - 1)]) + 1 if places else 1
