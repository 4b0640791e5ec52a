"""No flag parses and then does nothing: the code reads it, or it is refused, or it means another flag."""

from __future__ import annotations

import re
from pathlib import Path

import swift
from swift.params import leftovers
from swift.params.commands import COMMANDS

ONE_MEANING = {"neftune_backend"}  # all its values are the same code

SOURCES = Path(str(swift.__file__)).parent


def _words_of_the_code() -> set[str]:
    """Attributes (`.name`), quoted names and keywords in all code that is not the declarations themselves."""
    words: set[str] = set()
    for path in SOURCES.rglob("*.py"):
        if path.relative_to(SOURCES).parts[0] == "params" and path.name not in ("parse.py", "rules.py"):
            continue
        text = path.read_text(encoding="utf-8")
        words |= set(re.findall(r"\.([A-Za-z_]\w*)", text)) | set(re.findall(r"[\"']([A-Za-z_]\w*)[\"']", text))
    return words


def test_every_flag_is_read_or_refused() -> None:
    read = _words_of_the_code() | {row.flag for row in leftovers.TABLE}
    read |= {*leftovers.IDLE_FLAGS, *ONE_MEANING, "debug"}
    idle = {
        (command.name, name)
        for command in COMMANDS.values()
        for name, flag in command.flags.items()
        if name not in read and not flag.alias_of
    }
    assert sorted(idle) == []
