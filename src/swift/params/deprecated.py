"""Flags of the past: they still work, and each says once what replaced it."""

from __future__ import annotations

from swift.params.args import Args
from swift.params.commands import COMMANDS
from swift.params.flag import Deprecated


def notes(args: Args) -> list[str]:
    """One line for each deprecated flag that was given a value of its own."""
    lines = []
    for name, flag in COMMANDS[args.command].flags.items():
        if args.is_explicit(name) and args.values[name] != flag.default and (old := flag.marker(Deprecated)):
            instead = f": use --{old.use}" if old.use else "" if old.works else " and has no effect"
            lines.append(f"--{name} is deprecated{instead}")
    return lines
