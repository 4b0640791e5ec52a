"""The form of the declarations: every value comes through as it was set, and everything has a Chinese text."""

from __future__ import annotations

import random
from typing import Any

import pytest

from swift.params.chinese import command_zh, flag_zh, group_zh
from swift.params.commands import COMMANDS
from swift.params.flag import Alias, Flag, Json, Range
from swift.params.form import as_yaml, command_words, from_yaml, text_of, words_of
from swift.params.parse import read
from swift.params.secrets import SECRETS
from swift.params.takes_effect import condition

TEXTS = (
    "a",
    'it\'s "q"',
    "中文 文件",
    "",
    "-1",
    "--x",
    "-x y",
    "0",
    "a,b",
    "[x",
    "false",
    "x\ny",
    " lead",
    "#c",
    "a: b",
    "\\n",
    "$HOME `x`",
)
NUMBERS = (0, -1, 1, 2, 8, 0.5, 1e-5, 0.1, 100000, -100)
JSON_TEXTS = ('{"a": [1, "中"]}', "")


def one_value(flag: Flag, chance: random.Random) -> Any:
    if flag.choices:
        return chance.choice(flag.choices)
    kind = chance.choice(flag.kinds)
    if kind == "bool":
        return chance.choice((True, False))
    if kind == "str":
        texts = JSON_TEXTS if flag.marker(Json) is not None else TEXTS
        return chance.choice(
            [text for text in texts if not ("bool" in flag.kinds and text in ("true", "false", "0", "-1"))]
        )
    limits = flag.marker(Range)
    numbers = [int(number) if kind == "int" else float(number) for number in NUMBERS]
    return chance.choice([number for number in numbers if limits is None or number in limits])


def any_value(flag: Flag, chance: random.Random) -> Any:
    if flag.optional and chance.random() < 0.15:
        return None
    if flag.many:
        return tuple(one_value(flag, chance) for _ in range(chance.randrange(4)))
    return one_value(flag, chance)


def settings(command: str, chance: random.Random, count: int) -> dict[str, Any]:
    flags = [
        f for f in COMMANDS[command].flags.values() if f.marker(Alias) is None and f.name not in (*SECRETS, "ckpt_dir")
    ]
    return {flag.name: any_value(flag, chance) for flag in chance.sample(flags, min(count, len(flags)))}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_form_means_what_was_set(command: str) -> None:
    """Also false, 0, -1, empty, quotes, line ends, commas and leading dashes; as words and as a file."""
    chance = random.Random(command)
    flags = COMMANDS[command].flags
    for _ in range(100):
        values = settings(command, chance, 12)
        texts = {name: text_of(flags[name], value) for name, value in values.items()}
        parsed = read(command_words(command, texts))
        assert parsed.errors == []
        assert {name: parsed.args.values[name] for name in values} == values
        assert all(type(parsed.args.values[name]) is type(values[name]) for name in values)
        assert all(parsed.args.origins[name] == "cli" for name in values)
        again, refused = from_yaml(COMMANDS[command], "x.yaml", as_yaml(command, texts)[0])
        assert refused == []
        assert {
            name: read([command, *words_of(flags[name], text)]).args.values[name] for name, text in again.items()
        } == values


def test_a_file_of_flags_fills_the_form_or_says_what_it_cannot() -> None:
    texts, refused = from_yaml(
        COMMANDS["sft"],
        "a.yaml",
        'lora_rank: 4\nsystem: ""\ndataset: [a, "b,c"]\nlerning_rate: 1\nhub_token: x\npacking: maybe\n',
    )
    assert texts == {"lora_rank": "4", "system": "", "dataset": '["a", "b,c"]'}
    assert len(refused) == 3
    assert from_yaml(COMMANDS["sft"], "a.yaml", "- 1")[1]


def test_a_secret_never_stands_in_the_command_line() -> None:
    assert command_words("deploy", {"api_key": "sesame", "port": "1"}) == ["deploy", "--port", "1"]


def test_a_secret_of_the_environment_is_taken_and_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    from swift.params.render import config

    monkeypatch.setenv("SWIFT_API_KEY", "sesame")
    args = read(["deploy"]).args
    assert args.values["api_key"] == "sesame"
    assert read(["deploy", "--api_key", "other"]).args.values["api_key"] == "other"
    assert "sesame" not in config(args, "yaml") + config(args, "json")


def test_everything_has_a_chinese_text() -> None:
    for name, command in COMMANDS.items():
        assert command_zh(name)
        for use in command.uses:
            assert group_zh(use.name)
            for flag in use.flags():
                assert flag.alias_of or flag_zh(use.name, flag.name), flag.name


def test_no_chinese_text_is_left_over() -> None:
    from swift.params.chinese import _texts

    names = {flag.name for command in COMMANDS.values() for flag in command.flags.values()}
    groups = {use.name for command in COMMANDS.values() for use in command.uses}
    assert {name.rpartition(".")[2] for name in _texts()["flags"]} <= names
    assert set(_texts()["groups"]) == groups and set(_texts()["commands"]) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_conditions_name_flags_and_values_that_exist(command: str) -> None:
    flags = COMMANDS[command].flags
    for flag in flags.values():
        when = condition(flag)
        if when is None or when.name not in flags:
            continue
        for value in when.values:
            assert not read([command, *words_of(flags[when.name], value)]).errors
