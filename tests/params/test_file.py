"""A YAML or JSON file as the first word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swift.core.errors import SwiftError
from swift.params.parse import parse, read

YAML = """\
# a run
model_id_or_path: some/model
dataset:
  - a.jsonl
  - HF::org/name#10
learning-rate: 1e-4
save_strategy: no
system: "null"
packing: yes
model_kwargs: {hd_num: 16, ratio: 0.5}
eval_steps: ~
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(YAML)
    return path


def test_values_mean_what_they_mean_on_the_command_line(run: Path) -> None:
    args = parse(["sft", str(run)])
    assert args.values["dataset"] == ("a.jsonl", "HF::org/name#10")
    assert args.values["learning_rate"] == 1e-4
    assert args.values["save_strategy"] == "no"
    assert args.values["system"] == "null"
    assert args.values["packing"] is True
    assert args.values["model_kwargs"] == {"hd_num": 16, "ratio": 0.5}
    assert args.values["eval_steps"] is None
    assert args.origins["learning_rate"] == "file"


def test_flags_win(run: Path) -> None:
    args = parse(["sft", str(run), "--learning_rate", "2e-4", "--no_packing"])
    assert (args.values["learning_rate"], args.origins["learning_rate"]) == (2e-4, "cli")
    assert args.values["packing"] is False


def test_json_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"dataset": "a,b", "lora_rank": 16, "do_sample": None, "packing": True}, indent=1))
    args = parse(["sft", str(path)])
    assert args.values["dataset"] == ("a", "b")
    assert args.values["lora_rank"] == 16
    assert args.values["packing"] is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nlerning_rate: 1\n", r"run.yaml:2: --lerning_rate is not a flag"),
        ("seed: 1\nlerning_rate: 1\n", r"did you mean --learning_rate"),
        ("seed: 1\n\nlora_rank: x\n", r"run.yaml:3: lora_rank takes a whole number"),
        ("beta: 0.1\n", "that flag belongs to `rlhf`"),
        ("lora_rank: [1]\n", r"takes a whole number, not a list"),
        ("lora_rank: {a: 1}\n", r"takes a whole number, not a mapping"),
        ("- a\n", r"holds lines `flag: value`"),
        ("a: [\n", r"not valid YAML"),
        ("batch_size: 2\nper_device_train_batch_size: 4\n", r"the same flag with two values"),
        ("seed: 1\nlora_rank: 8\nseed: 2\n", "run.yaml:3: seed stands twice, first in line 1"),
        ("rope_scaling:\n  type: linear\n  type: yarn\n", "the key type stands twice"),
        ("seed: 1\n\0", "not valid YAML"),
        ("model_kwargs: &a {b: *a}\n", "or holds itself"),
        ("target_modules: &a [*a]\n", "or holds itself"),
        ("model_kwargs: " + "[" * 2000, "nested too deeply"),
        ("model_kwargs: {a: !!bool maybe}\n", "`maybe` is not what it looks like\nwhere: "),
        ("model_kwargs: {a: " + "9" * 5000 + "}\n", "is not what it looks like"),
        ("model_kwargs: {a: !!binary xx}\n", "JSON holds no"),
        ("model_kwargs: {? [a] : 1}\n", "a key is a text"),
        ("[seed]: 1\n", "a key is a text"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(SwiftError) as error:
        parse(["sft", str(path)])
    assert message in str(error.value)


def test_a_mapping_holds_what_json_can(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("model_kwargs: {a: [1, 0.5, yes, ~, x], d: 2024-01-01, e: {<<: {f: 1}, g: 2}}\n")
    held = {"a": [1, 0.5, True, None, "x"], "d": "2024-01-01", "e": {"f": 1, "g": 2}}
    assert parse(["sft", str(path)]).values["model_kwargs"] == held


@pytest.mark.parametrize("text", ["[" * 100_000, '{"seed": ' + "9" * 5000 + "}"])
def test_json_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(SwiftError, match="no JSON that can be read"):
        parse(["sft", str(path)])


def test_json_mistakes_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{\n "seed": 1,\n "lora_rank": "x"\n}')
    with pytest.raises(SwiftError, match=r"run\.json:3: lora_rank takes a whole number"):
        parse(["sft", str(path)])
    path.write_text('{\n "seed": 1,\n "lora_rank": 8,\n "seed": 2\n}')
    with pytest.raises(SwiftError, match=r"run\.json:4: seed stands twice, first in line 2"):
        parse(["sft", str(path)])
    path.write_text('{\n "rope_scaling": {"type": "linear",\n "type": "yarn"}\n}')
    with pytest.raises(SwiftError, match='the key "type" stands twice') as error:
        parse(["sft", str(path)])
    assert error.value.where == f"{path}:3"
    path.write_text('{\n "seed": 1,\n}')
    with pytest.raises(SwiftError, match="not valid JSON"):
        parse(["sft", str(path)])


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SwiftError, match="cannot be read"):
        parse(["sft", str(tmp_path / "nowhere.yaml")])


def test_file_and_flags_report_together(run: Path) -> None:
    run.write_text("lerning_rate: 1\n")
    assert len(read(["sft", str(run), "--lora_rank", "x"]).errors) == 2


def test_empty_file(run: Path) -> None:
    run.write_text("# nothing\n")
    assert parse(["sft", str(run)]).values["seed"] == 42
