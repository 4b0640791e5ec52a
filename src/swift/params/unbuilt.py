"""What the contract has and this release does not do yet: refused in one line, never ignored.

A row names the commands (all when empty), the flag, the values that are not built (any value but the default when
empty), and what is missing. Delete the row when the work is done.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from swift.core.errors import NotBuilt
from swift.params.args import Args
from swift.params.commands import COMMANDS
from swift.params.frozen import Frozen


class Missing(Frozen):
    """One piece of work that does not exist yet."""

    flag: str
    what: str
    commands: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()


TABLE: tuple[Missing, ...] = ()


def check(args: Args) -> list[NotBuilt]:
    """One error for each value the user gave whose work is missing."""
    return [
        NotBuilt(f"--{row.flag} {shown(args.values[row.flag])}: {row.what} is not built yet", next=_instead(row, args))
        for row in TABLE
        if applies(args, row.flag, row.commands, row.values)
    ]


def applies(args: Args, flag: str, commands: Collection[str], values: Collection[Any]) -> bool:
    """Whether the user gave the flag one of `values`, for one of `commands`. Empty: any but the default, any."""
    if flag not in args.values or (commands and args.command not in commands):
        return False
    if not args.changed(flag) or args.origins[flag] == "command":
        return False
    given = args.values[flag]
    return (given.lower() if isinstance(given, str) else given) in values if values else bool(given)


def _instead(row: Missing, args: Args) -> str:
    built = [choice for choice in COMMANDS[args.command].flags[row.flag].choices if choice not in row.values]
    return f"use {' or '.join(map(str, built))}" if built and row.values else "leave it out"


def shown(value: Any) -> str:
    """The value as it is typed."""
    return str(value).lower() if isinstance(value, bool) else str(value)
