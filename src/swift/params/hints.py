"""What an unknown name was probably meant to be. Read only when something is wrong."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

from swift.core.errors import SwiftError
from swift.core.suggest import closest, likeness
from swift.params.commands import COMMANDS, SHORT, Command
from swift.params.spec import Alias


def unknown_command(name: str) -> SwiftError:
    """The error for a word that is no command."""
    names = [*COMMANDS, *SHORT]
    near = closest(name, names)
    return SwiftError(
        f"`{name}` is not a command",
        why=f"there are {', '.join(names)}",
        next=f"did you mean `swift {near[0]}`?" if near else "swift --help",
    )


def unknown_flag(command: Command, name: str) -> SwiftError:
    """The error for a flag the command does not have: what it is elsewhere, or what it looks like."""
    owners = [other.name for other in COMMANDS.values() if name in other.flags]
    meant = _meant(command, name.lower())
    what = f"--{name} is not a flag of `swift {command.name}`"
    if owners and meant is None:
        return SwiftError(what, next=f"that flag belongs to {_listed(owners)}")
    if meant is None and (near := _near(command, name)):
        meant, other = near[0], near[1:]
        return SwiftError(what, next="did you mean " + " or ".join(f"--{n}" for n in (meant, *other)) + "?")
    if meant is None:
        return SwiftError(what, next=f"swift {command.name} --help-all lists them all")
    also = f" (that flag belongs to {_listed(owners)})" if owners else ""
    return SwiftError(what, next=f"did you mean --{meant}?{also}")


def _listed(owners: list[str]) -> str:
    return ", ".join(f"`{owner}`" for owner in owners[:3]) + (" and others" if len(owners) > 3 else "")


def _meant(command: Command, name: str) -> str | None:
    """The flag that other tools call `name`."""
    return next((flag for flag in _foreign().get(name, ()) if flag in command.flags), None)


def _near(command: Command, name: str) -> list[str]:
    own = [flag for flag in command.flags if command.flags[flag].marker(Alias) is None]
    found = closest(name, own, limit=3)
    if not found:
        return closest(name, command.flags)
    best = likeness(name, found[0])
    return [flag for flag in found if likeness(name, flag) >= best - 0.03]


@functools.cache
def _foreign() -> dict[str, tuple[str, ...]]:
    table = tomllib.loads(Path(__file__).with_name("foreign.toml").read_text(encoding="utf-8"))
    return {name: (flags,) if isinstance(flags, str) else tuple(flags) for name, flags in table.items()}
