"""Layers, origins, aliases, groups and short forms."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from swift.cli import main
from swift.core.errors import SeveralErrors, SwiftError
from swift.params.commands import with_training_command
from swift.params.groups import Data, Distributed, Lmdeploy, Model, Optim, Prompt, Rlhf, Train, Tuner
from swift.params.parse import parse, read

RUNS = Path(__file__).parent.parent / "fixtures" / "saved"


def test_groups_are_typed_values() -> None:
    args = parse(["sft", "--learning_rate", "1e-4", "--dataset", "a", "--per_device_train_batch_size", "4"])
    assert args[Optim].learning_rate == 1e-4
    assert args[Data].dataset == ("a",)
    assert args[Train].batch_size == 4
    with pytest.raises(AttributeError):
        args[Train].batch_size = 5  # type: ignore[misc]
    with pytest.raises(LookupError, match="does not use the group Rlhf"):
        args[Rlhf]


def test_a_name_may_mean_another_thing_in_another_command() -> None:
    assert parse(["sft", "--tp", "2"])[Distributed].tp == 2
    assert parse(["infer", "--tp", "2"])[Lmdeploy].tp == 2
    assert parse(["infer"])[Prompt].max_length == -1
    assert parse(["infer"])[Prompt].use_loss_scale is False


def test_origins() -> None:
    args = parse(["pt", "--lora_rank", "8"])
    assert args.origins["lora_rank"] == "cli"
    assert args.origins["sft_type"] == "command"
    assert args.origins["seed"] == "default"
    assert args.values["sft_type"] == "full"
    assert args[Tuner].target_modules == ("ALL",)


def test_dash_and_underscore_are_alike() -> None:
    assert parse(["merge_lora"]).command == parse(["merge-lora"]).command == "merge-lora"
    assert parse(["app_ui", "--server-port", "9"]).values["port"] == 9


@pytest.mark.parametrize("short", ["dpo", "orpo", "simpo", "cpo", "kto", "ppo", "grpo"])
def test_short_forms(short: str) -> None:
    args = parse([short])
    assert (args.command, args.values["rlhf_type"], args.origins["rlhf_type"]) == ("rlhf", short, "cli")


def test_short_form_does_not_hide_a_contradiction() -> None:
    with pytest.raises(SwiftError, match="`swift dpo` contradicts --rlhf_type kto"):
        parse(["dpo", "--rlhf_type", "kto"])


@pytest.mark.parametrize(
    ("alias", "words", "name", "expected"),
    [
        ("per_device_eval_batch_size", ["2"], "eval_batch_size", 2),
        ("eval_strategy", ["no"], "evaluation_strategy", "no"),
        ("deepspeed_config_path", ["default-zero2"], "deepspeed", "default-zero2"),
        ("only_save_model", [], "save_only_model", True),
        ("safe_serialization", ["false"], "save_safetensors", False),
        ("lora_target_modules", ["a", "b"], "target_modules", ("a", "b")),
        ("vera_modules_to_save", ["LN"], "modules_to_save", ("LN",)),
        ("neftune_alpha", ["5"], "neftune_noise_alpha", 5.0),
        ("push_hub_strategy", ["push_last"], "hub_strategy", "every_save"),
        ("push_hub_strategy", ["end"], "hub_strategy", "end"),
    ],
)
def test_aliases(alias: str, words: list[str], name: str, expected: object) -> None:
    args = parse(["sft", f"--{alias}", *words])
    assert args.values[name] == expected
    assert args.origins[name] == "cli"
    assert not args.values[alias]


def test_two_spellings_must_agree() -> None:
    assert parse(["sft", "--batch_size", "4", "--per_device_train_batch_size", "4"]).values["batch_size"] == 4
    with pytest.raises(SwiftError, match="the same flag with two values"):
        parse(["sft", "--batch_size", "1", "--per_device_train_batch_size", "4"])
    with pytest.raises(SwiftError, match="the same flag with two values"):
        parse(["sft", "--lora_target_modules", "a", "--vera_target_modules", "b"])


def test_the_last_of_two_words_counts() -> None:
    twice = read(["sft", "--seed", "1", "--seed", "2", "--lora_rank", "8", "--lora_rank", "8"])
    assert twice.args.values["seed"] == 2
    assert twice.warnings == ["--seed is given more than once: the last counts, 2; 1 does not"]
    lists = read(["sft", "--dataset", "a", "b", "--dataset", "c"])
    assert lists.args.values["dataset"] == ("c",)
    assert lists.warnings == ["--dataset is given more than once: the last counts, c; a b does not"]
    assert "sk-1" not in read(["deploy", "--api_key", "sk-1", "--api_key", "sk-2"]).warnings[0]


def test_mistakes_come_together() -> None:
    with pytest.raises(SeveralErrors) as error:
        parse(["sft", "--lerning_rate", "1", "--lora_rank", "x", "--sft_type", "lorra"])
    assert len(error.value.lines()) == 3
    assert all(name in str(error.value) for name in ("--lerning_rate", "--lora_rank", "--sft_type"))


def test_unknown_flags_can_be_let_through() -> None:
    parsed = read(["sft", "--nope", "1", "--what=2", "--ignore_args_error", "true", "--seed", "3"])
    assert parsed.errors == []
    assert parsed.warnings == ["ignored flags that are not known: --nope, --what"]
    assert parsed.args.values["seed"] == 3


def test_deprecated_flags_say_what_replaced_them() -> None:
    parsed = read(["sft", "--train_dataset_sample", "100", "--custom_train_dataset_path", "a.jsonl"])
    assert parsed.args.values["train_dataset_sample"] == 100
    assert len(parsed.warnings) == 2
    assert "--custom_train_dataset_path is deprecated: use --dataset" in parsed.warnings[1]
    assert read(["sft", "--train_dataset_sample", "-1"]).warnings == []


def test_the_variables_of_the_web_page(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SWIFT_UI_LANG": "en",
        "WEBUI_SERVER": "0.0.0.0",
        "WEBUI_PORT": "80",
        "WEBUI_SHARE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    page = parse(["web-ui"])
    assert [page.values[name] for name in ("lang", "host", "port", "share")] == ["en", "0.0.0.0", 80, True]
    assert page.origins["lang"] == "environment"
    beside = read(["web-ui", "--port", "7"])
    assert beside.args.values["port"] == 7 and beside.warnings == ["WEBUI_PORT does not count beside --port 7"]
    monkeypatch.setenv("WEBUI_PORT", "x")
    with pytest.raises(SwiftError, match="WEBUI_PORT takes a whole number, not `x`"):
        parse(["web-ui"])


def test_variables_of_old_scripts_that_do_not_count_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOG_LEVEL": "info", "USE_TORCHACC": "0", "PAI_OUTPUT_TENSORBOARD": ""}.items():
        monkeypatch.setenv(name, value)
    assert read(["sft"]).warnings == []
    for name, value in {"LOG_LEVEL": "ERROR", "USE_TORCHACC": "1", "PAI_OUTPUT_TENSORBOARD": "/x"}.items():
        monkeypatch.setenv(name, value)
    said = read(["sft"]).warnings
    assert [line.split(":")[0] for line in said] == [
        f"the environment variable {name} does not count"
        for name in ("LOG_LEVEL", "USE_TORCHACC", "PAI_OUTPUT_TENSORBOARD")
    ]


@pytest.mark.parametrize("command", ["infer", "merge-lora", "eval", "export"])
def test_processes_that_a_command_does_not_start_are_said(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    (tmp_path / "config.json").write_text("{")
    more = {"eval": ["--eval_dataset", "ceval"], "export": ["--quant_bits", "4"]}.get(command, [])
    assert main([command, "--ckpt_dir", str(tmp_path), *more]) == 2
    assert f"swift {command} is one process: NPROC_PER_NODE does not count" in capsys.readouterr().err


def test_unknown_command() -> None:
    with pytest.raises(SwiftError, match="did you mean `swift infer`"):
        parse(["infre"])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of the 2.5 release, as far as its arguments go."""
    (tmp_path / "sft_args.json").write_bytes(gzip.decompress((RUNS / "lora.json.gz").read_bytes()))
    return tmp_path


def test_checkpoint_brings_its_model(checkpoint: Path) -> None:
    args = parse(["infer", "--ckpt_dir", str(checkpoint)])
    assert args[Model].model_type == "qwen2-0_5b-instruct"
    assert args[Prompt].template_type == "qwen"
    assert args.origins["model_type"] == args.origins["dtype"] == "checkpoint"
    assert args[Data].dataset == ()
    assert args[Prompt].max_length == -1


def test_checkpoint_brings_its_rows_when_asked(checkpoint: Path) -> None:
    args = parse(["infer", "--ckpt_dir", str(checkpoint), "--load_dataset_config", "true"])
    assert args[Data].dataset == ("train.jsonl",)
    assert args.origins["dataset"] == "checkpoint"


def test_checkpoint_can_be_overridden_and_both_values_are_kept(checkpoint: Path) -> None:
    args = parse(["infer", "--ckpt_dir", str(checkpoint), "--dtype", "bf16", "--template_type", "qwen"])
    assert args.origins["dtype"] == "cli"
    assert dict(args.overridden) == {"dtype": ("bf16", "fp32")}


def test_checkpoint_can_be_ignored(checkpoint: Path) -> None:
    args = parse(["infer", "--ckpt_dir", str(checkpoint), "--load_args_from_ckpt_dir", "false"])
    assert args.origins["model_type"] == "default"


def test_folder_without_arguments_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    assert parse(["infer", "--ckpt_dir", str(tmp_path)]).values["model_type"] is None
    assert parse(["infer", "--ckpt_dir", str(tmp_path / "nowhere")]).values["model_type"] is None


def test_damaged_arguments_of_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "sft_args.json").write_text("{")
    with pytest.raises(SwiftError, match="cannot be read"):
        parse(["infer", "--ckpt_dir", str(tmp_path)])


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"model_type": 1}, "give model_type a value that it cannot have"),
        ({"dtype": [1]}, "give dtype a value that it cannot have"),
        ({"dtype": "fp8"}, "say dtype fp8, which is not known"),
        ({"dataset": {"a": 1}}, "give dataset a value"),
        ({"dataset": [None]}, "give dataset a value"),
        ({"quantization_bit": "2024"}, "give quantization_bit a value"),
        ({"custom_register_path": 3}, "give custom_register_path a value"),
    ],
)
def test_arguments_of_a_checkpoint_that_no_run_had(tmp_path: Path, saved: dict[str, object], message: str) -> None:
    (tmp_path / "sft_args.json").write_text(json.dumps(saved))
    with pytest.raises(SwiftError) as error:
        parse(["infer", "--ckpt_dir", str(tmp_path), "--load_dataset_config", "true"])
    assert message in str(error.value) and error.value.next and "sft_args.json" in str(error.value)


def test_what_a_checkpoint_leaves_open_is_the_default(tmp_path: Path) -> None:
    (tmp_path / "sft_args.json").write_text(json.dumps({"dtype": None, "dataset": None, "system": None}))
    args = parse(["infer", "--ckpt_dir", str(tmp_path), "--load_dataset_config", "true"])
    assert (args.values["dtype"], args.values["dataset"], args.values["system"]) == ("AUTO", (), None)


def test_lists_from_a_checkpoint_and_from_words_are_alike(checkpoint: Path) -> None:
    args = parse(["infer", "--ckpt_dir", str(checkpoint), "--load_dataset_config", "--dataset", "train.jsonl"])
    assert dict(args.overridden) == {}
    assert isinstance(args[Data].dataset, tuple)


def test_a_file_that_repeats_the_checkpoint_leaves_the_origin(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("model_type: qwen2-0_5b-instruct\ndtype: bf16\n")
    args = parse(["infer", str(path), "--ckpt_dir", str(checkpoint)])
    assert (args.origins["model_type"], args.origins["dtype"]) == ("checkpoint", "file")


def test_a_check_begins_with_what_is_trained() -> None:
    words = ["runs.yaml", "--beta", "0.2"]
    for name in ("pt", "dpo", "kto"):
        assert with_training_command([name, *words]) == [name, *words]
    assert with_training_command(["rm", *words]) == ["rlhf", *words, "--rlhf_type", "rm"]
    assert with_training_command(["--rlhf_type", "rm"])[0] == "rlhf" and with_training_command(["--beta"])[0] == "sft"
