"""The declarations as types of the Python API: `src/swift/__init__.pyi`, for editors and type checkers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from swift.params.commands import COMMANDS, Command
from swift.params.flag import Deprecated, Flag, Json, Named
from swift.params.render import first_sentence

CALLS = {
    "sft": ("sft", "Run"),
    "pt": ("pt", "Run"),
    "rlhf": ("rlhf", "Run"),
    "check": ("rlhf", "Verdict"),
    "infer": ("infer", "list[dict[str, Any]]"),
    "merge": ("merge-lora", "Path"),
    "export": ("export", "Path"),
    "evaluate": ("eval", "Evaluation"),
    "deploy": ("deploy", "AbstractContextManager[Endpoint]"),
}
"""Function of the API -> its command, and what it gives back."""
NOT_KEYWORDS = ("print_config", "debug")
"""Flags of the command line alone."""
HEAD = '''\
"""The public names of swift with their types. Generated from the declarations by docs/generate.py: do not edit."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from swift.api.model import Chat as Chat
from swift.api.model import Model as Model
from swift.api.results import Endpoint as Endpoint
from swift.api.results import Evaluation as Evaluation
from swift.api.results import Run as Run
from swift.catalog.custom import Template as Template
from swift.catalog.custom import register_dataset as register_dataset
from swift.catalog.custom import register_model as register_model
from swift.catalog.custom import register_template as register_template
from swift.checking.verdict import Verdict as Verdict
from swift.core.errors import SwiftError as SwiftError
from swift.prompts.api import get_template as get_template

__version__: str
'''
KINDS = {"bool": "bool", "int": "int", "float": "float", "str": "str | PathLike[str]"}


RESULT_PATH = "result_path: str | PathLike[str] | None = None,"
"""The keyword of `check` that is no flag of a training."""


def write_stubs(path: Path) -> None:
    """Write the stub file."""
    path.write_text(stubs(), encoding="utf-8")


def stubs() -> str:
    """The text of the stub file."""
    calls = [_call(name, COMMANDS[command], result) for name, (command, result) in CALLS.items()]
    first = "    checkpoint: str | PathLike[str],"
    summary = "A checkpoint, a model's folder, a model_type or a hub id, ready to answer."
    load = _function("load", first, COMMANDS["infer"], "Model", summary)
    return "\n".join([HEAD, *calls, load])


def _call(name: str, command: Command, result: str) -> str:
    text = _function(name, "    config: str | PathLike[str] | None = None,", command, result, command.summary)
    if name == "check":  # of `sft`, unless one of them is given
        text = text.replace("    *,", f"    *,\n    command: str | None = None,\n    {RESULT_PATH}", 1)
        text = re.sub(r"(    rlhf_type: .*?) = .*,", r"\1 | None = None,", text, count=1)
        text = text.replace(command.summary, "Whether a training on these rows computes what it should", 1)
    return text


def _function(name: str, first: str, command: Command, result: str, summary: str) -> str:
    taken = [flag for flag in command.flags.values() if flag.name not in NOT_KEYWORDS]
    keywords = [f"    {flag.name}: {annotation(flag)} = {_default(flag)}," for flag in taken]
    return "\n".join([f"def {name}(", first, "    *,", *keywords, f") -> {result}:", *_doc(summary, taken), ""])


def _doc(summary: str, flags: list[Flag]) -> Iterator[str]:
    yield f'    """{summary}'
    yield ""
    yield "    Args:"
    for flag in flags:
        if flag.alias_of is None and flag.marker(Deprecated) is None:
            yield f"        {flag.name}: {first_sentence(flag)}."
    yield '    """'
    yield "    ..."


def annotation(flag: Flag) -> str:
    """The type of the keyword that gives a flag."""
    if flag.choices and len(flag.kinds) == 1:
        words = ", ".join(_literal(choice) for choice in flag.choices)
        scalar = f"Literal[{words}]"
        if set(flag.choices) >= {"true", "false"}:
            scalar += " | bool"
    else:
        scalar = " | ".join(KINDS[kind] for kind in flag.kinds)
    if flag.marker(Json) is not None:
        scalar += " | Mapping[str, Any]"
    if flag.many:
        item = f"{scalar} | None" if flag.empty_items else scalar
        scalar = f"{scalar} | Sequence[{item}]"
    if flag.marker(Named) is not None:
        scalar += " | Mapping[str, str | PathLike[str]]"
    return f"{scalar} | None" if flag.optional else scalar


def _literal(choice: object) -> str:
    return json.dumps(choice) if isinstance(choice, str) else repr(choice)


def _default(flag: Flag) -> str:
    if isinstance(flag.default, str):
        return json.dumps(flag.default, ensure_ascii=False)
    return repr(flag.default)
