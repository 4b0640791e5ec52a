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
            lines.append(f"--{name} is deprecated" + (f": use --{old.use}" if old.use else " and has no effect"))
    return lines
