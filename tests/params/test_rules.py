"""What flags say together, and what is refused because it is not built."""

from __future__ import annotations

from pathlib import Path

import pytest

from swift.core.errors import NotBuilt
from swift.params.commands import COMMANDS
from swift.params.flag import Flag
from swift.params.parse import parse
from swift.params.rules import check
from swift.params.unbuilt import TABLE, Missing
from swift.params.unbuilt import check as refused

READY = ["--model_type", "m", "--dataset", "d"]


def mistakes(*words: str) -> str:
    return "\n".join(str(error) for error in check(parse(words)))


@pytest.mark.parametrize("command", ["sft", "pt", "rlhf"])
def test_nothing_wrong(command: str) -> None:
    assert mistakes(command, *READY) == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--freeze_parameters_ratio 0.5", "--freeze_parameters_ratio works with full tuning only, not with lora"),
        ("--sft_type full --quantization_bit 4", "full tuning cannot train weights of 4 bit"),
        ("--lisa_activated_layers 2", "LISA works with full tuning only"),
        ("--sft_type full --use_dora", "--use_dora works with LoRA only"),
        ("--streaming true", "add --max_steps"),
        ("--streaming --max_steps 5 --test_oom_error", "--test_oom_error sorts the rows"),
        ("--streaming --max_steps 5 --dataloader_num_workers 2", "--dataloader_num_workers 0 only"),
        ("--resume_only_model true", "--resume_only_model has nothing to take the weights from"),
        ("--min_lr 1e-6 --lr_scheduler_type linear", "--min_lr goes with --lr_scheduler_type cosine, not linear"),
        ("--predict_with_generate true --evaluation_strategy no", "--predict_with_generate evaluates"),
        ("--dataset self-cognition#10", "self-cognition rows need --model_name"),
        ("--dataset MS::self-cognition --model_name a", "self-cognition rows need --model_author"),
        ("--self_cognition_sample 5", "self-cognition rows need --model_name"),
        ("--model_name a b c", "not 3"),
        ("--init_lora_weights pisa", "--init_lora_weights does not take `pisa`"),
        ("--boft_block_num 2 --boft_block_size 8", "exclude each other"),
        ("--resume_from_checkpoint /no/such", "--resume_from_checkpoint /no/such is not a folder"),
        ("--custom_register_path /no/such.py", "--custom_register_path /no/such.py is not a file"),
        ("--deepspeed zero9.json", "give a JSON file, JSON text or default-zero2"),
    ],
)
def test_training(words: str, message: str) -> None:
    assert message in mistakes("sft", *READY, *words.split())


@pytest.mark.parametrize(
    "words",
    [
        "--sft_type full --freeze_parameters_ratio 0.5",
        "--streaming --max_steps 5",
        "--dataset self-cognition --model_name a --model_author b",
        "--init_lora_weights pissa_niter_16",
        "--init_lora_weights false",
        "--resume_from_checkpoint auto",
        "--deepspeed default-zero3",
        "--sft_type lora --quantization_bit 4",
    ],
)
def test_training_that_is_fine(words: str) -> None:
    assert mistakes("sft", *READY, *words.split()) == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("infer", "no model is given"),
        ("infer --model_type m --lora_modules x", "is not NAME=FOLDER"),
        ("infer --model_type m --load_dataset_config", "add --ckpt_dir"),
        ("infer --model_type m --merge_lora", "no adapter to merge"),
        ("deploy --model_type m --ssl_certfile x", "--ssl_certfile needs --ssl_keyfile too"),
        ("export --model_type m --push_to_hub", "add --hub_model_id"),
        ("sft --model_type m", "no rows to train on"),
    ],
)
def test_other_commands(words: str, message: str) -> None:
    assert message in mistakes(*words.split())


def test_commands_that_need_no_model() -> None:
    assert mistakes("web-ui") == ""
    assert mistakes("eval", "--eval_url", "http://localhost:8000/v1") == ""


def test_a_path_that_is_nearly_right(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-100").mkdir()
    assert "checkpoint-100?" in mistakes("infer", "--ckpt_dir", str(tmp_path / "checkpiont-100"))


def test_json_files_are_read_early(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text("{")
    assert "is not valid JSON" in mistakes("sft", *READY, "--device_map_config", str(path))
    path.write_text("{}")
    assert mistakes("sft", *READY, "--device_map_config", str(path)) == ""


def test_unsure_says_nothing_about_what_is_missing() -> None:
    assert check(parse(["sft"]), unsure=True) == []


def test_the_table_names_real_flags_and_values() -> None:
    for row in TABLE:
        owners = [command for command in COMMANDS.values() if row.flag in command.flags]
        assert owners, row.flag
        assert set(row.commands) <= {command.name for command in owners}
        for value in row.values:
            assert any(value in (command.flags[row.flag].choices or (True, False)) for command in owners), row


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.flag}-{row.what}")
def test_what_is_not_built_is_refused_and_the_default_is_not(row: Missing) -> None:
    for command in COMMANDS.values():
        flag = command.flags.get(row.flag)
        if flag is None or (row.commands and command.name not in row.commands):
            continue
        assert refused(parse([command.name])) == []
        value = next((v for v in row.values), None) or _another(flag)
        errors = refused(parse([command.name, f"--{flag.name}", *value.split()]))
        assert errors and all(isinstance(error, NotBuilt) for error in errors)
        assert "not built yet" in str(errors[0])


def _another(flag: Flag) -> str:
    if flag.is_switch:
        return str(not flag.default).lower()
    if flag.choices:
        return str(flag.choices[-1])
    return "2" if "int" in flag.kinds else "text"
