"""The form of a command, read off its declarations: what each field shows, and what is wrong with what was typed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swift.core.errors import SwiftError
from swift.params.chinese import flag_zh, group_zh
from swift.params.commands import COMMANDS, Command
from swift.params.flag import Alias, Basic, Deprecated, Exists, Flag, Json, Known, OneOf, Ours, Range
from swift.params.form import command_words, text_of
from swift.params.parse import Parsed, read
from swift.params.render import helps, metavar, shown
from swift.params.secrets import SECRETS
from swift.params.takes_effect import Condition, condition
from swift.plan.mistakes import mistakes
from swift.web.paths import AllowedPaths
from swift.web.words import Language

Control = Literal["select", "text", "area", "list", "secret"]
CHECKPOINTS = ("ckpt_dir", "resume_from_checkpoint")
FORMS = tuple(name for name in COMMANDS if name != "web-ui")
"""The commands that have a form."""
_PATHS = re.compile(r"_(dir|path|paths|id_or_path|register_path|plugins|info)$")
_FLAG_NAME = re.compile(r"--([A-Za-z]\w*)")


@dataclass(frozen=True)
class Field:
    """A flag as a field: everything that the template prints."""

    flag: Flag
    language: Language
    aliases: tuple[str, ...] = ()
    """Other spellings of the flag."""

    @property
    def name(self) -> str:
        return self.flag.name

    @property
    def control(self) -> Control:
        flag = self.flag
        if flag.name in SECRETS:
            return "secret"
        if flag.many:
            return "list"
        if flag.is_switch or flag.choices:
            return "select"
        free = flag.kinds == ("str",) and not self.suggests
        return "area" if free or flag.marker(Json) is not None else "text"

    @property
    def suggests(self) -> bool:
        """Whether the server knows values to choose from."""
        markers = (OneOf, Known, Exists)
        path = "str" in self.flag.kinds and (_PATHS.search(self.name) or self.name in (*CHECKPOINTS, "eval_dataset"))
        return bool(path) or any(self.flag.marker(kind) is not None for kind in markers) or bool(self.flag.choices)

    @property
    def options(self) -> list[str]:
        """What a select offers besides the default."""
        values = (True, False) if self.flag.is_switch else self.flag.choices
        return [text_of(self.flag, value) for value in (*values, *((None,) if self.flag.optional else ()))]

    @property
    def default(self) -> str:
        return shown(self.flag.default)

    @property
    def help(self) -> str:
        return self._texts[0]

    @property
    def _texts(self) -> tuple[str, str]:
        """The help in the language of the page, and in the other."""
        english = helps(self.flag.group)[self.name]
        chinese = flag_zh(self.flag.group.__name__, self.name) or english
        return (chinese, english) if self.language == "zh" else (english, chinese)

    @property
    def kind(self) -> str:
        """What a value looks like, as in a usage line."""
        return metavar(self.flag) or "BOOL"

    @property
    def range(self) -> str:
        """The numbers it takes, in signs that need no language."""
        limits = self.flag.marker(Range)
        if limits is None:
            return ""
        low = "" if limits.low is None else f"{'>' if limits.above else '≥'} {limits.low:g}"
        high = "" if limits.high is None else f"{'<' if limits.below else '≤'} {limits.high:.10g}"
        return ", ".join(filter(None, (low, high, *(f"{value:g}" for value in limits.also))))

    @property
    def empty_means(self) -> str:
        """What an emptied field says: an empty text where the flag takes one, else the default."""
        return "text" if "str" in self.flag.kinds and not self.flag.many and not self.flag.choices else "default"

    @property
    def only(self) -> Condition | None:
        return condition(self.flag)

    @property
    def common(self) -> bool:
        return self.flag.marker(Basic) is not None

    @property
    def marks(self) -> tuple[str, ...]:
        kinds = ((Ours, "ours"), (Deprecated, "deprecated"))
        return tuple(word for kind, word in kinds if self.flag.marker(kind) is not None)

    @property
    def searched(self) -> str:
        """What the search looks through besides the texts that are shown: other spellings, the other language."""
        return " ".join((self.name.replace("_", " "), *self.aliases, self._texts[1]))


@dataclass(frozen=True)
class Section:
    """A group of the form."""

    name: str
    title: str
    common: list[Field]
    rest: list[Field]


def sections(command: Command, language: Language) -> list[Section]:
    """The groups in their order; other spellings of a flag have no field of their own."""
    out = []
    aliases: dict[str, tuple[str, ...]] = {}
    for flag in command.flags.values():
        if flag.alias_of is not None:
            aliases[flag.alias_of] = (*aliases.get(flag.alias_of, ()), flag.name)
    for use in command.uses:
        title = group_zh(use.name) if language == "zh" else helps(use.group)[""].rstrip(".")
        flags = [command.flags[flag.name] for flag in use.flags()]
        fields = [Field(flag, language, aliases.get(flag.name, ())) for flag in flags if flag.marker(Alias) is None]
        fields.sort(key=lambda field: "deprecated" in field.marks)
        common, rest = ([f for f in fields if f.common is basic] for basic in (True, False))
        if fields:
            out.append(Section(use.name, title, common, rest))
    return out


def problems(command: str, texts: Mapping[str, str], paths: AllowedPaths, cwd: Path) -> dict[str, list[str]]:
    """What is wrong with a filled form by the field it belongs to; what belongs to none stands under "".

    What can only be seen from the model or the rows is found by a dry run.
    """
    parsed = read(command_words(command, texts))
    return by_field(command, errors_of(parsed, paths, cwd))


def errors_of(parsed: Parsed, paths: AllowedPaths, cwd: Path) -> list[SwiftError]:
    """Every mistake of a command line that shows before it starts, paths outside of the allowed folders among them."""
    args = parsed.args
    return [*parsed.errors, *mistakes(args, unsure=bool(parsed.errors)), *paths.mistakes(args, cwd)]


def by_field(command: str, errors: list[SwiftError]) -> dict[str, list[str]]:
    """The messages by the flag each names first."""
    out: dict[str, list[str]] = {}
    for error in errors:
        text = ", ".join(filter(None, (error.what, error.why, error.next)))
        name = field_named(command, " ".join(filter(None, (error.where, error.what, error.next))))
        out.setdefault(name, []).append(text)
    return out


def field_named(command: str, text: str) -> str:
    """The first flag of the command that a message names; an empty text for none."""
    flags = COMMANDS[command].flags
    names = (flags[name].alias_of or name for name in _FLAG_NAME.findall(text) if name in flags)
    return next(names, "")


def log_errors(command: str, log: str) -> dict[str, list[str]]:
    """The errors at the end of a command's log, by field: what a dry run found."""
    lines = log.rstrip().splitlines()
    start = next((n for n in range(len(lines) - 1, -1, -1) if lines[n].startswith("error: ")), None)
    if start is None:
        return {}
    while start > 0 and lines[start - 1].startswith("error: "):
        start -= 1
    out: dict[str, list[str]] = {}
    message: list[str] = []
    for line in [*lines[start:], "error: "]:
        if line.startswith("error: ") and message:
            out.setdefault(
                field_named(command, " ".join(reversed(message)) if len(message) > 1 else message[0]), []
            ).append(" ".join(part.strip() for part in message))
            message = []
        message.append(line.removeprefix("error: ").strip())
    return out
