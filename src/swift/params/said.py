"""Read the command line and the YAML or JSON file into what was said, collecting every mistake on the way."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, Literal

from swift.core.errors import SwiftError
from swift.params.commands import Command
from swift.params.flag import Alias, Bare, Flag
from swift.params.frozen import Record
from swift.params.unknown_flags import unknown_flag
from swift.params.values import FALSE, NOTHING, TRUE, BadValue, Plain, from_file, from_words

_FLAG = re.compile(r"--[A-Za-z][\w-]*(=.*)?", re.DOTALL)
_ONE_DASH = re.compile(r"-[A-Za-z][\w-]*(=.*)?", re.DOTALL)


class Said(Record):
    """A value somebody gave: as which spelling, and where."""

    value: Any
    spelling: str
    where: str | None
    origin: Literal["cli", "file"]


class Reading:
    """What one source said, by canonical flag, and what was wrong with it."""

    def __init__(self) -> None:
        self.said: dict[str, Said] = {}
        self.errors: list[SwiftError] = []
        self.unknown: list[tuple[str, SwiftError]] = []

    def add(self, command: Command, flag: Flag, said: Said) -> None:
        """Note a value under its canonical flag; two spellings in one source must agree."""
        alias = flag.marker(Alias)
        name = flag.name
        if alias is not None:
            if said.value == flag.default:
                return
            name = alias.of
            said = said.replace(value=_translated(alias, said.value))
        earlier = self.said.get(name)
        if earlier is None or earlier.spelling == said.spelling:
            self.said[name] = said
            return
        # A file made by `--print_config` lists a flag with all its aliases; the unset ones are no second opinion.
        unset = (command.flags[name].default,) if said.origin == "file" else ()
        if said.value == earlier.value or said.value in unset:
            return
        if earlier.value not in unset:
            what = f"--{said.spelling} and --{earlier.spelling} are the same flag with two values"
            self.errors.append(SwiftError(what, where=said.where, next=f"keep --{name}"))
        self.said[name] = said


def _translated(alias: Alias, value: Any) -> Any:
    return alias.values.get(value, value) if isinstance(value, str) else value


def read_words(command: Command, words: Sequence[str]) -> Reading:
    """Read the words after the command (and after the file, if there is one)."""
    reading = Reading()
    at = 0
    while at < len(words):
        if not _FLAG.fullmatch(words[at]):
            end = _until_flag(words, at + 1)
            reading.errors.append(_stray(command, words[at]))
            at = end
            continue
        name, equals, attached = words[at][2:].partition("=")
        end = _until_flag(words, at + 1)
        values = ([attached] if equals else []) + list(words[at + 1 : end])
        _read_flag(command, reading, name, values)
        at = end
    return reading


def _until_flag(words: Sequence[str], at: int) -> int:
    while at < len(words) and not (_FLAG.fullmatch(words[at]) or _ONE_DASH.fullmatch(words[at])):
        at += 1
    return at


def _stray(command: Command, word: str) -> SwiftError:
    if not _ONE_DASH.fullmatch(word):
        return SwiftError(
            f"`{word}` belongs to no flag", next="a YAML or JSON file is the first word after the command"
        )
    name = word[1:].partition("=")[0].replace("-", "_")
    meant = f"write --{name}" if name in command.flags else unknown_flag(command, name).next
    return SwiftError(f"`{word}` is no flag: they begin with two dashes", next=meant)


def _read_flag(command: Command, reading: Reading, spelled: str, words: list[str]) -> None:
    name = spelled.replace("-", "_")
    flag = command.flags.get(name)
    if flag is None and name.startswith("no_"):
        switch = command.flags.get(name[3:])
        if switch is not None and switch.is_switch:
            if words:
                reading.errors.append(
                    SwiftError(f"--{spelled} takes no value, not `{words[0]}`", next=f"--{switch.name} {words[0]}")
                )
            reading.add(command, switch, Said(False, switch.name, None, "cli"))
            return
    if flag is None:
        reading.unknown.append((spelled, unknown_flag(command, name)))
        return
    try:
        value = _flag_value(flag, words)
    except BadValue as bad:
        reading.errors.append(SwiftError(f"--{spelled} {bad.what}", next=bad.next))
        return
    reading.add(command, flag, Said(value, flag.name, None, "cli"))


def _flag_value(flag: Flag, words: list[str]) -> Any:
    bare = flag.marker(Bare)
    if flag.is_switch and (not words or (words[0].lower() not in TRUE | FALSE and words[0] not in NOTHING)):
        if words:
            raise BadValue(f"takes true or false, not `{words[0]}`")
        return True
    if bare is not None and not words:
        return from_words(flag, [bare.value])
    return from_words(flag, words)


def read_file(command: Command, path: str) -> Reading:
    """Read a YAML or JSON file of flags. Raises SwiftError for a file that is not one."""
    reading = Reading()
    for key, line, raw in _entries(path):
        where = f"{path}:{line}"
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
        reading.add(command, flag, Said(value, flag.name, where, "file"))
    return reading


def _entries(path: str) -> list[tuple[str, int, Any]]:
    """Key, line and raw value of each flag in the file."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise SwiftError("the file of flags is not UTF-8 text", where=path) from error
    except OSError as error:
        raise SwiftError(f"the file of flags cannot be read: {error.strerror}", where=path) from error
    if os.path.splitext(path)[1] == ".json":
        return _json_entries(path, text)
    from swift.params.yamlfile import entries

    return entries(path, text)


def _json_entries(path: str, text: str) -> list[tuple[str, int, Any]]:
    import json

    pairs: list[tuple[str, Any]] = []

    def keep(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs[:] = found  # the outermost object comes last
        return dict(found)

    try:
        whole = json.loads(text, object_pairs_hook=keep)
    except json.JSONDecodeError as error:
        raise SwiftError(f"not valid JSON: {error.msg}", where=f"{path}:{error.lineno}") from error
    if not isinstance(whole, dict):
        raise SwiftError("a file of flags holds one object: {flag: value, …}", where=f"{path}:1")
    return [(key, _line_of(text, key), _json_raw(value)) for key, value in (pairs if whole else [])]


def _json_raw(value: Any) -> Any:
    if isinstance(value, list):
        return [_json_raw(item) for item in value]
    if isinstance(value, bool):
        return Plain(str(value).lower())
    return Plain(repr(value)) if isinstance(value, int | float) else value


def _line_of(text: str, key: str) -> int:
    found = re.search(f'"{re.escape(key)}"\\s*:', text) or re.search(re.escape(key), text)
    return text.count("\n", 0, found.start()) + 1 if found else 1
