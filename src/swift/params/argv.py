"""Read the words of the command line into flags and values, collecting every mistake on the way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from swift.core.environment import FALSE, TRUE
from swift.core.errors import SwiftError
from swift.params.commands import Command
from swift.params.flag import Alias, Bare, Flag
from swift.params.frozen import Frozen
from swift.params.unknown_flags import unknown_flag
from swift.params.values import NOTHING, BadValue, from_words

_FLAG = re.compile(r"--[A-Za-z][\w-]*(=.*)?", re.DOTALL)
_ONE_DASH = re.compile(r"-[A-Za-z][\w-]*(=.*)?", re.DOTALL)


class ParsedFlag(Frozen):
    """A value somebody gave: as which spelling, and where."""

    value: Any
    spelling: str
    where: str | None
    origin: Literal["cli", "file"]


class Reading:
    """What one source gave, by canonical flag, and what was wrong with it."""

    def __init__(self) -> None:
        self.flags: dict[str, ParsedFlag] = {}
        self.errors: list[SwiftError] = []
        self.unknown: list[tuple[str, SwiftError]] = []
        self.repeated: dict[str, Any] = {}
        """The first value of each flag that was given twice with two values, of which the last counts."""

    def add(self, command: Command, flag: Flag, parsed: ParsedFlag) -> None:
        """Note a value under its canonical flag; two spellings in one source must agree."""
        alias = flag.marker(Alias)
        name = flag.name
        if alias is not None:
            if parsed.value == flag.default:
                return
            name = alias.of
            parsed = parsed.replace(value=_translated(alias, parsed.value))
        earlier = self.flags.get(name)
        if earlier is None or earlier.spelling == parsed.spelling:
            if earlier is not None and earlier.value != parsed.value:
                self.repeated[name] = earlier.value
            self.flags[name] = parsed
            return
        # A file made by `--print_config` lists a flag with all its aliases; the unset ones are no second opinion.
        unset = (command.flags[name].default,) if parsed.origin == "file" else ()
        if parsed.value == earlier.value or parsed.value in unset:
            return
        if earlier.value not in unset:
            what = f"--{parsed.spelling} and --{earlier.spelling} are the same flag with two values"
            self.errors.append(SwiftError(what, where=parsed.where, next=f"keep --{name}"))
        self.flags[name] = parsed


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


def looks_like_a_flag(word: str) -> bool:
    """Whether a word of its own would begin the next flag; as a value it is attached: `--flag=word`."""
    return bool(_FLAG.fullmatch(word) or _ONE_DASH.fullmatch(word))


def _until_flag(words: Sequence[str], at: int) -> int:
    while at < len(words) and not looks_like_a_flag(words[at]):
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
            reading.add(command, switch, ParsedFlag(False, switch.name, None, "cli"))
            return
    if flag is None:
        reading.unknown.append((spelled, unknown_flag(command, name)))
        return
    try:
        value = _flag_value(flag, words)
    except BadValue as bad:
        reading.errors.append(SwiftError(f"--{spelled} {bad.what}", next=bad.next))
        return
    reading.add(command, flag, ParsedFlag(value, flag.name, None, "cli"))


def _flag_value(flag: Flag, words: list[str]) -> Any:
    bare = flag.marker(Bare)
    if flag.is_switch and (not words or (words[0].lower() not in TRUE | FALSE and words[0] not in NOTHING)):
        if words:
            raise BadValue(f"takes true or false, not `{words[0]}`")
        return True
    if bare is not None and not words:
        return from_words(flag, [bare.value])
    return from_words(flag, words)
