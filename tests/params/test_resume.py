"""What becomes of the flags of a resumed run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swift.core.errors import SwiftError
from swift.params.args import Args
from swift.params.commands import COMMANDS
from swift.params.parse import parse
from swift.params.resume import FLAGS, GROUPS, Resumed, another_run, fates, resumed, trained_with

SAVED: dict[str, Any] = {
    "command": "sft",
    "model_type": "m",
    "sft_type": "lora",
    "lora_rank": 16,
    "learning_rate": 0.001,
    "dataset": ["a.jsonl"],
    "batch_size": 2,
    "gradient_accumulation_steps": 8,
    "max_steps": 10,
    "optim": "adamw_torch",
    "output_dir": "elsewhere",
    "world_size": 1,
    "template_type": "chatml",
}


def given(*words: str, command: str = "sft") -> Args:
    return parse([command, "--model_type", "m", "--dataset", "a.jsonl", "--resume_from_checkpoint", "auto", *words])


def go_on(*words: str, processes: int = 1, command: str = "sft") -> Resumed:
    return resumed(given(*words, command=command), SAVED, {}, processes=processes)


@pytest.mark.parametrize("command", ["sft", "pt", "rlhf"])
def test_every_flag_has_a_fate(command: str) -> None:
    flags = {flag.name for flag in COMMANDS[command].flags.values() if flag.alias_of is None}
    assert set(fates(command)) == flags


def test_the_table_names_what_there_is() -> None:
    assert set(FLAGS) <= set(fates("sft")) | set(fates("rlhf"))
    assert set(GROUPS) == {use.name for use in COMMANDS["rlhf"].uses}


def test_what_is_not_given_is_the_checkpoints() -> None:
    run = go_on()
    assert run.args.values["lora_rank"] == 16
    assert run.args.values["learning_rate"] == 0.001
    assert run.args.values["dataset"] == ("a.jsonl",)
    assert run.args.values["output_dir"] == "output"
    assert run.args.origins["lora_rank"] == "checkpoint"
    assert "--lora_rank 16" in run.notes[0] and "output_dir" not in run.notes[0]
    assert run.warnings == []


def test_what_is_given_is_applied_and_named() -> None:
    run = go_on("--learning_rate", "2e-3", "--max_steps", "20")
    assert run.args.values["learning_rate"] == 0.002
    assert run.args.values["max_steps"] == 20
    assert "--learning_rate 0.002 (it was 0.001)" in run.notes[-1] and "--max_steps 20" in run.notes[-1]


def test_other_rows_are_a_warning() -> None:
    assert go_on("--batch_size", "4").warnings == ["rows may repeat or be left out: --batch_size 4 (it was 2)"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lora_rank", "8"], "cannot go on with --lora_rank 8 (it was 16)"),
        (["--sft_type", "full"], "cannot go on with --sft_type full (it was lora)"),
        (["--optim", "adafactor"], "cannot go on with --optim adafactor (it was adamw_torch)"),
    ],
)
def test_what_cannot_change_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(SwiftError) as raised:
        go_on(*words)
    assert message in raised.value.what


def test_weights_alone_start_a_new_run_of_the_same_shape() -> None:
    run = go_on("--resume_only_model", "true", "--optim", "adafactor", command="pt")
    assert (run.args.values["optim"], run.args.values["lora_rank"], run.args.values["sft_type"]) == (
        "adafactor",
        16,
        "lora",
    )
    assert run.args.values["learning_rate"] is None
    with pytest.raises(SwiftError, match="lora_rank"):
        go_on("--resume_only_model", "true", "--lora_rank", "4")
    with pytest.raises(SwiftError, match="written by swift sft"):
        go_on(command="pt")


def test_one_flag_takes_the_place_of_another() -> None:
    assert go_on("--num_train_epochs", "3").args.values["max_steps"] == -1
    assert go_on("--max_steps", "12").args.values["max_steps"] == 12
    assert go_on().args.values["gradient_accumulation_steps"] == 8
    assert go_on(processes=2).args.values["gradient_accumulation_steps"] == 4, "as many rows a step as before"
    assert go_on("--batch_size", "4", processes=2).args.values["gradient_accumulation_steps"] == 2
    assert go_on(processes=3).args.values["gradient_accumulation_steps"] is None, "no number of them is the same rows"
    assert "processes: 2, where 1 were before" in " ".join(go_on(processes=2).notes)


def test_decided_values_are_compared() -> None:
    args = given()
    run = resumed(args, SAVED, {"learning_rate": 0.001, "template_type": "chatml"}, processes=1)
    assert "learning_rate" not in run.notes[0] and "template_type" not in run.notes[0]


def test_auto_passes_over_other_runs() -> None:
    assert another_run(given(), SAVED, "m") is None
    assert another_run(given(), SAVED, "n") == "it is of m"
    assert another_run(given(command="pt"), SAVED, "m") == "it was written by swift sft"
    assert another_run(given("--sft_type", "full"), SAVED, "m") == "it was trained with --sft_type lora"


def test_a_plain_adapter_tells_its_shape(tmp_path: Path) -> None:
    assert trained_with(tmp_path) == {"sft_type": "full"}
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 16}))
    assert trained_with(tmp_path) == {"sft_type": "lora", "lora_rank": 4, "lora_alpha": 16}
    (tmp_path / "sft_args.json").write_text(json.dumps({"sft_type": "ia3"}))
    assert trained_with(tmp_path) == {"sft_type": "ia3"}
