"""The declarations as text: help for the terminal, pages for the docs, the configuration as YAML or JSON."""

from __future__ import annotations

import ast
import functools
import itertools
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from swift.params.args import Args
from swift.params.commands import COMMANDS, OWN, SHORT, Command
from swift.params.flag import Alias, Basic, Deprecated, Flag, Json, Known, OneOf, Ours, Range, Text

if TYPE_CHECKING:
    from pathlib import Path

_NAME = 34
"""Columns of a flag's name in the help."""


def helps(group: type) -> Mapping[str, str]:
    """The help of each flag of a group: the docstring under its field."""
    return _docstrings(str(sys.modules[group.__module__].__file__))[group.__name__]


@functools.cache
def _docstrings(path: str) -> Mapping[str, Mapping[str, str]]:
    """Class, field, docstring of a file of groups; the class's own stands under "" (`-OO` leaves none in memory)."""
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    classes: dict[str, dict[str, str]] = {}
    for group in tree.body:
        if not isinstance(group, ast.ClassDef):
            continue
        texts = classes[group.name] = {"": ast.get_docstring(group) or ""}
        for field, text in itertools.pairwise(group.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                texts[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return classes


def overview() -> str:
    """What `swift --help` prints."""
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "Usage: swift COMMAND [FILE.yaml] [--flag value …]",
            "",
            "Commands:",
            *(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()),
            "",
            "swift COMMAND --help       the flags most people use",
            "swift COMMAND --help-all   every flag",
            "swift COMMAND … --print_config [yaml|json]",
            "                           every value and its origin; the YAML runs again",
            *(f"{'swift ' + own.usage:<25}  {own.summary}" for own in OWN.values()),
            "swift --version            what is installed",
        ]
    )


def command_help(command: Command, *, every: bool) -> str:
    """What `swift COMMAND --help` prints, or `--help-all` with `every`."""
    width = _columns()
    lines = [f"Usage: swift {command.name} [FILE.yaml] [--flag value …]", "", command.summary, ""]
    for title, flags in sections(command):
        shown = [f for f in flags if every or f.marker(Basic)]
        if shown:
            lines.append(title)
            for flag in shown:
                lines += _entry(flag, width, every=every)
            lines.append("")
    if every:
        lines.append("A switch stands alone or takes true/false, and --no_FLAG turns it off.")
        lines.append("Lists take blanks or commas between their values.")
    else:
        lines.append(f"swift {command.name} --help-all shows all {len(command.flags)} flags.")
    return "\n".join(lines)


def sections(command: Command) -> Iterator[tuple[str, list[Flag]]]:
    """The title of each group of a command and its flags, aliases and deprecated ones last."""
    for use in command.uses:
        title = helps(use.group)[""].rstrip(".")
        flags = [command.flags[flag.name] for flag in use.flags()]
        yield title, sorted(flags, key=lambda f: (f.marker(Alias) is not None, f.marker(Deprecated) is not None))


def _columns() -> int:
    try:
        width = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError, AttributeError):
        columns = os.environ.get("COLUMNS", "")
        width = int(columns) if columns.isdecimal() else 100
    return max(80, min(width, 120))


def _entry(flag: Flag, width: int, *, every: bool) -> list[str]:
    name = f"  --{flag.name} {metavar(flag)}"
    text = f"{describe(flag) if every else first_sentence(flag)} [{shown(flag.default)}]"
    body = _wrapped(text, width - _NAME)
    if len(name) >= _NAME:
        return [name, *(" " * _NAME + line for line in body)]
    return [f"{name:<{_NAME}}{body[0]}", *(" " * _NAME + line for line in body[1:])]


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width`, broken between words (textwrap would take longer than all the rest)."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".lstrip()
    return lines


def first_sentence(flag: Flag) -> str:
    """What a flag is, on one line."""
    text = re.split(r"(?<=[.;]) ", helps(flag.group)[flag.name])[0].rstrip(".;")
    text = text if len(text) <= 80 else text.partition(": ")[0]
    return f"{text}: {', '.join(map(str, flag.choices))}" if flag.choices else text


def describe(flag: Flag) -> str:
    """The help of a flag with what its markers say."""
    alias, old = flag.marker(Alias), flag.marker(Deprecated)
    if alias is not None:
        return f"The same as --{alias.of}."
    text = helps(flag.group)[flag.name]
    if flag.choices:
        text += f" One of {', '.join(map(str, flag.choices))}."
    known = flag.marker(Known)
    if known is not None:
        text += f" Known: {', '.join(known.names)}."
    limits = flag.marker(Range)
    if limits is not None:
        text += f" {str(limits).capitalize()}."
    if old is not None:
        instead = f": use --{old.use}." if old.use else "." if old.works else ": has no effect."
        text += f" Deprecated{instead}"
    return text


def metavar(flag: Flag) -> str:
    """What stands for the value in a usage line."""
    if flag.is_switch:
        return "" if not flag.optional else "[BOOL]"
    if flag.marker(Json) is not None:
        return "JSON"
    if flag.marker(OneOf) is not None:
        return "NAME …" if flag.many else "NAME"
    if flag.marker(Text) is not None:
        return "TEXT …"
    if flag.choices and len(flag.kinds) == 1 and flag.kinds[0] == "str":
        word = "CHOICE"
    else:
        words = {"str": "TEXT", "int": "N", "float": "X", "bool": "BOOL"}
        word = next(word for kind, word in words.items() if kind in flag.kinds)
    return f"{word} …" if flag.many else word


def shown(value: Any) -> str:
    """A value as it would be written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join(shown(item) for item in value) or "none"
    if value == "":
        return "''"
    return f"{value:g}" if isinstance(value, float) else str(value)


def config(args: Args, form: str) -> str:
    """Every value and its origin; the YAML can be run again. Secrets of the environment stay there."""
    hidden = {"print_config", "debug", *(name for name, origin in args.origins.items() if origin == "environment")}
    names = [name for name in args.values if name not in hidden]
    if form == "json":
        import json

        values = {name: {"value": args.values[name], "origin": args.origins[name]} for name in names}
        return json.dumps({"command": args.command, "values": values}, indent=2, ensure_ascii=False)
    head = [
        f"# Run again with: swift {args.command} THIS-FILE. Behind each value stands where it came from.",
        "# A value in this file wins over one from a checkpoint: delete the lines you do not set.",
    ]
    return "\n".join([*head, *(f"{name}: {to_yaml(args.values[name])}  # {args.origins[name]}" for name in names)])


_BARE = re.compile(r"(?!(?:true|false|yes|no|on|off|null|none|y|n)$)[A-Za-z_/][\w./+@-]*", re.IGNORECASE | re.ASCII)


def to_yaml(value: Any) -> str:
    """A value as YAML on one line, read alike by YAML 1.1 and 1.2."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        text = repr(value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{to_yaml(key)}: {to_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(to_yaml, value)) + "]"
    text = str(value)
    return text if _BARE.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    short = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
    return '"' + "".join(short.get(c) or (c if c.isprintable() else f"\\U{ord(c):08x}") for c in text) + '"'


def write_reference(folder: Path) -> None:
    """Write the parameter reference: one page a command, and an index."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"| [`swift {name}`]({name}.md) | {c.summary} | {len(c.flags)} |" for name, c in COMMANDS.items()]
    index = ["# Parameter reference", "", "| command | what it does | flags |", "|---|---|---|", *rows, "", _FORMS]
    (folder / "README.md").write_text("\n".join(index), encoding="utf-8")
    for name, command in COMMANDS.items():
        (folder / f"{name}.md").write_text("\n".join(_page(command)), encoding="utf-8")


_FORMS = f"""Short forms: {", ".join(f"`swift {name}`" for name in SHORT)} are `swift rlhf --rlhf_type …`.

A switch stands alone (`--packing`), takes `true`/`false`, `1`/`0`, `yes`/`no`, or is turned off by `--no_packing`.
Lists take blanks or commas (`--dataset a b`, `--dataset a,b`). Flags that take JSON take its text or the path of a
file. `None` or `null` unsets a value. `-` and `_` are alike in names; names are never abbreviated. A YAML or JSON file
of flags may stand after the command; flags on the command line win over it.
"""


def _page(command: Command) -> Iterator[str]:
    yield from (f"# swift {command.name}", "", command.summary, "")
    for title, flags in sections(command):
        yield from (f"## {title}", "", "| flag | default | |", "|---|---|---|")
        for flag in flags:
            marks = " ".join(
                word for kind, word in ((Basic, "**common**"), (Ours, "*not in the 2.5 release*")) if flag.marker(kind)
            )
            text = describe(flag).replace("|", "\\|").replace("<", "&lt;")
            form = f" {metavar(flag)}".rstrip()
            yield f"| `--{flag.name}{form}` | `{shown(flag.default)}` | {text} {marks}".rstrip() + " |"
        yield ""


if __name__ == "__main__":
    from pathlib import Path

    write_reference(Path(sys.argv[1]))
