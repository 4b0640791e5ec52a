"""Help, reference pages and the printed configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from swift.params.commands import COMMANDS
from swift.params.parse import parse
from swift.params.render import command_help, config, helps, overview, to_yaml, write_reference

SAID = {
    "sft": [
        "--dataset",
        "a b.jsonl",
        "HF::x/y:z#3",
        "--lr_scheduler_kwargs",
        '{"a": 1e-5}',
        "--system",
        'say "no": # 1\n',
    ],
    "dpo": ["--rpo_alpha", "0.5"],
    "infer": ["--stop_words", ",", "--temperature", "1e-8"],
    "eval": ["--name", "", "--eval_limit", "[10:20]"],
}


def test_overview_names_every_command() -> None:
    assert all(f"  {name} " in overview() for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("columns", [80, 100, 120])
def test_help_fits_the_terminal(name: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for every in (False, True):
        assert max(map(len, command_help(COMMANDS[name], every=every).splitlines())) <= columns


@pytest.mark.parametrize("name", COMMANDS)
def test_short_help_fits_the_screen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert len(command_help(COMMANDS[name], every=False).splitlines()) <= 70


@pytest.mark.parametrize("name", COMMANDS)
def test_full_help_shows_every_flag(name: str) -> None:
    text = command_help(COMMANDS[name], every=True)
    assert all(f"  --{flag}" in text for flag in COMMANDS[name].flags)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_explained(name: str) -> None:
    assert all(helps(flag.group)[flag.name].endswith(".") for flag in COMMANDS[name].flags.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_configuration_lists_every_flag(name: str) -> None:
    printed = json.loads(config(parse([name]), "json"))
    assert printed["command"] == name
    assert set(printed["values"]) == set(COMMANDS[name].flags) - {"print_config", "debug"}
    assert set(printed["values"]["ignore_args_error"]) == {"value", "origin"}
    assert set(yaml.safe_load(config(parse([name]), "yaml"))) == set(printed["values"])


@pytest.mark.parametrize("name", [*COMMANDS, "dpo"])
def test_printed_yaml_runs_again(name: str, tmp_path: Path) -> None:
    words = list(SAID.get(name, []))
    if name in ("sft", "pt", "dpo"):
        words += ["--per_device_train_batch_size", "4", "--lora_target_modules", "x"]
    before = parse([name, *words])
    path = tmp_path / "run.yaml"
    path.write_text(config(before, "yaml"), encoding="utf-8")
    after = parse([name, str(path)])
    assert json.loads(json.dumps(dict(after.values))) == json.loads(json.dumps(dict(before.values)))


def test_yaml_is_read_alike_by_other_readers() -> None:
    texts = ["no", "null", "8", "1e-4", "a: b", "a #b", "x\ty\n", "小黄🐤", "\u2028", "", "-", "~"]
    values = [None, True, 1, 1e-8, 1.5, 1e22, *texts, ["a", None, ","], {"k": [1e-5, {"no": "yes"}]}]
    for value in values:
        assert yaml.safe_load(f"x: {to_yaml(value)}  # note") == {"x": value}


def test_reference_has_a_page_for_each_command(tmp_path: Path) -> None:
    write_reference(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == {"README", *COMMANDS}
    page = (tmp_path / "sft.md").read_text(encoding="utf-8")
    assert all(f"| `--{flag}" in page for flag in COMMANDS["sft"].flags)
