"""From a command line to `Args`: argv > file > checkpoint > the command's defaults > the fields' defaults.

The environment gives secrets (`swift.params.secrets`), and where the web page listens (`swift.params.page_variables`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from swift.core.errors import SwiftError, raise_together
from swift.params import deprecated, idle_flags, leftovers
from swift.params.args import Args, Origin
from swift.params.argv import ParsedFlag, Reading, read_words
from swift.params.checkpoint_args import SFT_ARGS, read_saved
from swift.params.commands import Command, find_command
from swift.params.config_file import read_file
from swift.params.flag import Flag, Saved
from swift.params.frozen import Frozen
from swift.params.keywords import read_keywords
from swift.params.page_variables import read_variables
from swift.params.secrets import SECRETS, secrets_of_environment
from swift.params.values import shown


class Parsed(Frozen):
    """The arguments as far as they could be read, the mistakes, and what the user should be told besides."""

    args: Args
    errors: list[SwiftError]
    warnings: list[str]

    def say(self) -> None:
        """Log the warnings, and what was given otherwise than the checkpoint has it."""
        if not (self.warnings or self.args.overridden):
            return
        from swift.core.log import log

        for warning in self.warnings:
            log.warning(warning)
        for name, (given, saved) in self.args.overridden.items():
            log.info("--%s: %s (the checkpoint was trained with %s)", name, given, saved)


FILES = (".yaml", ".yml", ".json")
"""Endings of a file of flags."""


def parse(argv: Sequence[str]) -> Args:
    """The arguments of a command line, e.g. `["sft", "--dataset", "a.jsonl"]`. Raises SwiftError for its mistakes."""
    parsed = read(argv)
    raise_together(parsed.errors)
    return parsed.args


def read(argv: Sequence[str]) -> Parsed:
    """Read a command line and keep its mistakes, so that they can be reported together."""
    command, _ = find_command(argv[0])
    words = list(argv[1:])
    file = None
    if words and not words[0].startswith("-") and os.path.splitext(words[0])[1] in FILES:
        file = words.pop(0)
    return _read(argv[0], file, read_words(command, words))


def read_call(name: str, file: str | None, keywords: Mapping[str, Any]) -> Parsed:
    """Read the keywords of a Python call, over a file of flags, as `read` does a command line."""
    command, _ = find_command(name)
    return _read(name, file, read_keywords(command, keywords))


def _read(spelled: str, path: str | None, cli: Reading) -> Parsed:
    command, short = find_command(spelled)
    file = Reading()
    errors: list[SwiftError] = []
    if path is not None:
        try:
            file = read_file(command, path)
        except SwiftError as error:
            errors.append(error)
    explicit = {**file.flags, **cli.flags}
    errors += file.errors + cli.errors
    warnings = [
        f"--{name} is given more than once: the last counts"
        + ("" if name in SECRETS else f", {shown(cli.flags[name].value)}; {shown(earlier)} does not")
        for name, earlier in cli.repeated.items()
    ]
    unknown = file.unknown + cli.unknown
    if unknown and "ignore_args_error" in explicit and explicit["ignore_args_error"].value is True:
        warnings.append("ignored flags that are not known: " + ", ".join(f"--{name}" for name, _ in unknown))
    else:
        errors += [error for _, error in unknown]
    errors += _contradicts(short, explicit, spelled)
    try:
        saved = _saved(command, explicit)
    except SwiftError as error:
        errors.append(error)
        saved = {}
    variables, told, wrong = read_variables(command, explicit)
    warnings += told
    errors += wrong
    args = _layered(command, short, explicit, saved, {**secrets_of_environment(), **variables})
    return Parsed(args, errors, [*warnings, *deprecated.notes(args), *idle_flags.notes(args), *leftovers.notes()])


def _contradicts(short: dict[str, Any], explicit: dict[str, ParsedFlag], spelled: str) -> list[SwiftError]:
    return [
        SwiftError(f"`swift {spelled}` contradicts --{name} {explicit[name].value}", next=f"swift rlhf --{name} …")
        for name, value in short.items()
        if name in explicit and explicit[name].value != value
    ]


def _saved(command: Command, explicit: dict[str, ParsedFlag]) -> dict[str, Any]:
    """The flags that the checkpoint passes on to this command."""

    def value(name: str) -> Any:
        return explicit[name].value if name in explicit else command.flags[name].default

    if "ckpt_dir" not in command.flags or value("ckpt_dir") is None or not value("load_args_from_ckpt_dir"):
        return {}
    parts = ("model", "data") if value("load_dataset_config") else ("model",)
    saved = read_saved(value("ckpt_dir"))
    return {
        flag.name: _typed(flag, saved[flag.name], value("ckpt_dir"))
        for flag in command.flags.values()
        if (mark := flag.marker(Saved)) is not None and mark.part in parts and flag.name in saved
        if saved[flag.name] is not None or flag.optional  # nothing is said there of the others
    }


def _typed(flag: Flag, value: Any, folder: str) -> Any:
    """A value that a checkpoint records. Raises SwiftError for one that the flag does not take."""
    if flag.choices and value is not None and value not in flag.choices:
        raise SwiftError(
            f"the arguments of the checkpoint say {flag.name} {value}, which is not known",
            where=os.path.join(folder, SFT_ARGS),
            next=f"--{flag.name} " + " or ".join(str(choice) for choice in flag.choices),
        )
    if not flag.many or value is None:
        return value
    return tuple(value) if isinstance(value, list) else (value,)


def _layered(
    command: Command,
    short: dict[str, Any],
    explicit: dict[str, ParsedFlag],
    saved: dict[str, Any],
    environment: dict[str, Any],
) -> Args:
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    overridden: dict[str, tuple[Any, Any]] = {}
    for name, flag in command.flags.items():
        if name in explicit:
            values[name], origins[name] = explicit[name].value, explicit[name].origin
            if name in saved and saved[name] == explicit[name].value and explicit[name].origin == "file":
                origins[name] = "checkpoint"  # a file made by `--print_config` repeats what the checkpoint says
            elif name in saved and saved[name] != explicit[name].value:
                overridden[name] = (explicit[name].value, saved[name])
        elif name in short:
            values[name], origins[name] = short[name], "cli"
        elif name in saved:
            values[name], origins[name] = saved[name], "checkpoint"
        elif name in environment:
            values[name], origins[name] = environment[name], "environment"
        else:
            values[name], origins[name] = flag.default, "command" if flag.from_command else "default"
    return Args(command.name, values, origins, overridden)
