"""Every command, flag, default and choice of the contract, frozen in cli.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swift.params.commands import COMMANDS
from swift.params.flag import Basic, Deprecated, Ours

CONTRACT: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("cli.json").read_text(encoding="utf-8"))


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_every_command_is_there() -> None:
    assert set(COMMANDS) == set(CONTRACT)


@pytest.mark.parametrize("name", CONTRACT)
def test_flags_defaults_and_choices(name: str) -> None:
    flags = COMMANDS[name].flags
    assert set(CONTRACT[name]) <= set(flags)
    for flag, given in CONTRACT[name].items():
        declared = flags[flag]
        default = _as_json(declared.default)
        assert default == given["default"], flag
        assert isinstance(default, bool) == isinstance(given["default"], bool), flag
        if given["closed"]:
            assert set(declared.choices) >= set(given["choices"]), flag
        if given["source"] == "reference":
            assert (declared.marker(Deprecated) is not None) == given["deprecated"], flag


@pytest.mark.parametrize("name", CONTRACT)
def test_common_flags_are_in_the_short_help(name: str) -> None:
    common = {flag for flag, given in CONTRACT[name].items() if given["common"]}
    shown = {flag for flag, declared in COMMANDS[name].flags.items() if declared.marker(Basic)}
    assert common <= shown


@pytest.mark.parametrize("name", ["sft", "pt", "rlhf", "web-ui"])
def test_flags_beyond_the_contract_say_so(name: str) -> None:
    more = {flag for flag in COMMANDS[name].flags if flag not in CONTRACT[name]}
    assert {flag for flag in more if COMMANDS[name].flags[flag].marker(Ours) is None} <= {"ignore_args_error"}
