"""The declarations as a form: what a person typed into fields becomes a command line, and values become such texts.

A field holds text. A list has an item a line, or is one JSON list, which is the only way to write an item that holds a
comma or begins with a dash.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from swift.core.errors import SwiftError
from swift.params.args import Args
from swift.params.argv import looks_like_a_flag
from swift.params.commands import COMMANDS, Command
from swift.params.config_file import read_text
from swift.params.flag import Flag
from swift.params.parse import Parsed, read
from swift.params.render import to_yaml
from swift.params.secrets import SECRETS
from swift.params.values import NOTHING


def words_of(flag: Flag, text: str) -> list[str]:
    """The words that give the flag this text, e.g. `["--lora_rank", "8"]`; an empty text is a value too."""
    if not flag.many:
        return _attached(flag, text)
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and any(map(looks_like_a_flag, lines)):
        lines = [json.dumps(lines, ensure_ascii=False)]
    if len(lines) == 1:
        return _attached(flag, lines[0])
    return [f"--{flag.name}", *(lines or ["None"])]


def _attached(flag: Flag, word: str) -> list[str]:
    return [f"--{flag.name}={word}"] if looks_like_a_flag(word) else [f"--{flag.name}", word]


def text_of(flag: Flag, value: Any) -> str:
    """The text that stands for a value in the field of the flag."""
    if not flag.many or value is None:
        return _plain(value)
    items = [_plain(item) for item in value]
    simple = items and not any(re.search(r"[,\r\n]|^\s|\s$|^\[|^$", item) or item in NOTHING for item in items)
    return "\n".join(items) if simple else json.dumps(list(value), ensure_ascii=False)


def _plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "None", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    return repr(value) if isinstance(value, float) else str(value)


def command_words(command: str, texts: Mapping[str, str]) -> list[str]:
    """The command line of a filled form, without `swift`: the fields in `texts` are given, in the order declared.

    Secrets are left out: they are handed on by the environment.
    """
    flags = COMMANDS[command].flags.values()
    given = (words_of(flag, texts[flag.name]) for flag in flags if flag.name in texts and flag.name not in SECRETS)
    return [command, *(word for words in given for word in words)]


def given_line(args: Args) -> str:
    """A command line of what was given on one and in a file of flags, without secrets."""
    flags = COMMANDS[args.command].flags
    texts = {name: text_of(flag, args.values[name]) for name, flag in flags.items() if args.is_explicit(name)}
    return shlex.join(["swift", *command_words(args.command, texts)])


def as_yaml(command: str, texts: Mapping[str, str]) -> tuple[str, Parsed]:
    """The values of a filled form as a file that the command takes, and how they were read."""
    parsed = read(command_words(command, texts))
    lines = [f"{name}: {to_yaml(parsed.args.values[name])}" for name in texts if parsed.args.is_explicit(name)]
    return "\n".join([f"# swift {command} THIS-FILE", *lines, ""]), parsed


def from_yaml(command: Command, name: str, content: str) -> tuple[dict[str, str], list[str]]:
    """The texts of the fields that a file of flags fills, and what could not be taken over. `name` is the file's."""
    try:
        reading = read_text(command, name, content)
    except SwiftError as error:
        return {}, [" ".join(error.lines())]
    problems = [error.what for error in reading.errors] + [error.what for _, error in reading.unknown]
    texts: dict[str, str] = {}
    for flag_name, parsed in reading.flags.items():
        flag = command.flags[flag_name]
        text = text_of(flag, parsed.value)
        again = read([command.name, *words_of(flag, text)]).args.values[flag_name]
        if flag_name in SECRETS:
            problems.append(f"{flag_name} is a secret: give it in its field")
        elif again != parsed.value and text_of(flag, again) != text:
            problems.append(f"{parsed.where}: {flag_name} has a value that no command line can give")
        else:
            texts[flag_name] = text
    return texts, problems
