"""What flags say together, and what is refused because nothing here is behind it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from swift.params import leftovers, optimizers, rules
from swift.params.args import Args
from swift.params.commands import COMMANDS
from swift.params.flag import Flag
from swift.params.parse import parse
from swift.params.rules import Mistakes, check

Rule = Callable[[Args], Mistakes]
READY = ["--model_type", "m", "--dataset", "d"]


def mistakes(*words: str) -> str:
    return "\n".join(str(error) for error in check(parse(words)))


@pytest.mark.parametrize("command", ["sft", "pt", "rlhf"])
def test_nothing_wrong(command: str) -> None:
    assert mistakes(command, *READY) == ""


TRAIN = "sft --model_type m --dataset d "
GALORE = TRAIN + "--sft_type full --use_galore true "
AT_ONCE = GALORE + "--galore_optim_per_parameter true "
BROKEN: list[tuple[Rule, str, str]] = [
    (optimizers.flags_of_galore_need_it, TRAIN + "--galore_rank 4", "add --use_galore true"),
    (optimizers.flags_of_galore_need_it, GALORE + "--galore_queue_size 4", "add --galore_quantization true"),
    (optimizers.galore_has_whole_weights_to_project, TRAIN + "--use_galore true", "add --sft_type full"),
    (optimizers.galore_has_whole_weights_to_project, GALORE + "--optim lomo", "does not work inside --optim lomo"),
    (optimizers.galore_has_whole_weights_to_project, GALORE + "--galore_proj_type up", "takes std, reverse_std"),
    (optimizers.galore_per_parameter_sees_one_pass_a_step, AT_ONCE, "add --gradient_accumulation_steps 1"),
    (
        optimizers.galore_per_parameter_sees_one_pass_a_step,
        AT_ONCE + "--gradient_accumulation_steps 1 --max_grad_norm 1",
        "drop --max_grad_norm",
    ),
    (
        optimizers.galore_per_parameter_sees_one_pass_a_step,
        AT_ONCE + "--gradient_accumulation_steps 1 --auto_find_batch_size true",
        "which accumulates",
    ),
    (optimizers.lisa_needs_full_tuning, TRAIN + "--lisa_step_interval 4", "add --lisa_activated_layers 2"),
    (optimizers.lisa_needs_full_tuning, GALORE + "--lisa_activated_layers 2", "do not go together"),
    (optimizers.a_loss_is_known, TRAIN + "--loss_name long", "takes long-ce or loss-scale"),
    (optimizers.a_loss_is_known, "rlhf --rlhf_type dpo --loss_name long-ce", "--loss_type names one"),
    (rules.a_model_is_given, "infer", "no model is given, add --model_id_or_path ID-OR-FOLDER or --ckpt_dir"),
    (rules.training_has_rows, "sft --model_type m", "no rows to train on"),
    (rules.merging_has_a_checkpoint, "merge-lora --model_type m", "no adapter to merge"),
    (rules.merging_has_a_checkpoint, "infer --model_type m --merge_lora", "no adapter to merge"),
    (
        rules.checkpoints_exist,
        TRAIN + "--resume_from_checkpoint /no/such",
        "--resume_from_checkpoint /no/such is not a",
    ),
    (rules.longlora_learns_from_texts, "rlhf --rlhf_type dpo --sft_type longlora", "works with swift sft and swift pt"),
    (rules.checkpoints_exist, "infer --ckpt_dir /no/such", "--ckpt_dir /no/such is not a folder"),
    (
        rules.files_exist,
        TRAIN + "--custom_register_path /no/such.py",
        "--custom_register_path /no/such.py is not a file",
    ),
    (rules.files_exist, "web-ui --allowed_paths . /nowhere", "--allowed_paths /nowhere is not a folder"),
    (rules.files_exist, TRAIN + "--deepspeed zero9.json", "give a JSON file, JSON text or default-zero2"),
    (rules.adapters_do_not_freeze, TRAIN + "--freeze_parameters_ratio 0.5", "full tuning only, not with lora"),
    (optimizers.lisa_needs_full_tuning, TRAIN + "--lisa_activated_layers 2", "LISA works with full tuning only"),
    (
        rules.lora_variants_need_lora,
        TRAIN + "--sft_type full --use_dora",
        "--use_dora works with LoRA only, not with full",
    ),
    (rules.lora_variants_need_lora, TRAIN + "--sft_type vera --use_rslora", "works with LoRA only, not with vera"),
    (rules.streaming_has_an_end, TRAIN + "--streaming true", "add --max_steps"),
    (rules.micro_batching_is_a_way_or_a_size, TRAIN + "--micro_batching 0", "auto, said or a number of tokens, not 0"),
    (rules.streams_are_read_in_order, TRAIN + "--streaming --max_steps 5 --rehearse", "looks for the longest rows"),
    (rules.rehearsals_know_the_rows, TRAIN + "--rehearse --lazy_tokenize true", "needs the lengths"),
    (rules.streams_are_read_in_order, TRAIN + "--streaming --max_steps 5 --test_oom_error", "sorts the rows"),
    (
        rules.streams_are_read_in_order,
        TRAIN + "--streaming --max_steps 5 --dataloader_num_workers 2",
        "_workers 0 only",
    ),
    (
        rules.weights_alone_come_from_a_checkpoint,
        TRAIN + "--resume_only_model true",
        "nothing to take the weights from",
    ),
    (rules.the_lowest_rate_is_that_of_a_cosine, TRAIN + "--min_lr 1e-6 --lr_scheduler_type linear", "not linear"),
    (rules.answers_are_generated_in_evaluation, TRAIN + "--predict_with_generate --evaluation_strategy no", "is no, d"),
    (
        rules.answers_are_generated_in_evaluation,
        TRAIN + "--lr_scheduler_type reduce_lr_on_plateau --evaluation_strategy no",
        "--lr_scheduler_type reduce_lr_on_plateau evaluates",
    ),
    (rules.self_cognition_has_names, TRAIN + "--dataset self-cognition#10", "self-cognition rows need --model_name"),
    (rules.self_cognition_has_names, TRAIN + "--dataset MS::self-cognition --model_name a", "need --model_author"),
    (rules.self_cognition_has_names, TRAIN + "--dataset self-cognition:default", "need --model_author"),
    (rules.self_cognition_has_names, TRAIN + "--self_cognition_sample 5", "self-cognition rows need --model_name"),
    (rules.names_are_two_at_most, TRAIN + "--model_name a b c", "a Chinese and an English name, not 3"),
    (rules.lora_starts_in_a_known_way, TRAIN + "--init_lora_weights pisa", "does not take `pisa`"),
    (rules.lora_starts_in_a_known_way, TRAIN + "--init_lora_weights pissa_niter_0", "does not take `pissa_niter_0`"),
    (rules.boft_counts_blocks_or_their_size, TRAIN + "--boft_block_num 2 --boft_block_size 8", "exclude each other"),
    (rules.lora_modules_have_names, "infer --model_type m --lora_modules x", "is not NAME=FOLDER"),
    (rules.one_model_answers, "infer --model_type m --lora_modules a=b", "--ckpt_dir b asks that one"),
    (rules.one_model_answers, "eval --model_type m --lora_modules a=b c=d", "adapters to choose among"),
    (
        rules.frozen_parameters_are_names,
        TRAIN + "--sft_type full --freeze_parameters 0.5",
        "--freeze_parameters_ratio 0.5",
    ),
    (rules.tls_has_both_files, "deploy --model_type m --ssl_certfile x", "--ssl_certfile needs --ssl_keyfile too"),
    (rules.a_public_address_is_whole, "web-ui --public_url gpu.example/swift", "is no address"),
    (rules.hub_pushes_have_a_name, "export --model_type m --push_to_hub", "add --hub_model_id"),
    (
        rules.exports_quantize_by_flags_of_their_own,
        "export --model_type m --to_gguf f16 --quantization_bit 4",
        "--quant_bits 4 or 8 writes a quantized model",
    ),
    (rules.dataset_config_comes_from_a_checkpoint, "infer --model_type m --load_dataset_config", "add --ckpt_dir"),
    (
        rules.dataset_config_comes_from_a_checkpoint,
        "infer --model_type m --load_dataset_config --load_args_from_ckpt_dir false --ckpt_dir x",
        "drop --load_args_from_ckpt_dir false",
    ),
]


@pytest.mark.parametrize(("rule", "words", "message"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_a_rule_says_what_it_is_called_for(rule: Rule, words: str, message: str) -> None:
    args = parse(words.split())
    errors = list(rule(args))
    assert message in ", ".join(f"{error.what}, {error.next}" for error in errors)
    assert set(map(str, errors)) <= set(map(str, check(args)))


def test_every_rule_has_been_broken_once() -> None:
    functions = {
        value for module in (rules, optimizers) for value in vars(module).values() if inspect.isfunction(value)
    }
    public = {f for f in functions if f.__annotations__.get("return") == "Mistakes" and not f.__name__.startswith("_")}
    assert public == {rule for rule, _, _ in BROKEN}


@pytest.mark.parametrize(
    "words",
    [
        "--sft_type full --freeze_parameters_ratio 0.5",
        "--streaming --max_steps 5",
        "--dataset self-cognition --model_name a --model_author b",
        "--init_lora_weights pissa_niter_16",
        "--init_lora_weights false",
        "--init_lora_weights guassian",
        "--init_lora_weights OLoRA",
        "--resume_from_checkpoint auto",
        "--deepspeed default-zero2",
        "--sft_type lora --quantization_bit 4",
    ],
)
def test_training_that_is_fine(words: str) -> None:
    assert mistakes("sft", *READY, *words.split()) == ""


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


@pytest.mark.parametrize("row", leftovers.TABLE, ids=lambda row: row.flag)
def test_a_leftover_is_refused_with_what_to_use_instead(row: leftovers.Leftover) -> None:
    owners = [c for c in COMMANDS.values() if row.flag in c.flags and (not row.commands or c.name in row.commands)]
    assert owners
    for command in owners:
        assert leftovers.check(parse([command.name])) == []
        value = row.values[0] if row.values else _another(command.flags[row.flag])
        (error,) = leftovers.check(parse([command.name, f"--{row.flag}", *value.split()]))
        assert f"--{row.flag} {value} belongs to {row.what}" in str(error) and error.next == row.instead


@pytest.mark.parametrize("row", leftovers.TABLE, ids=lambda row: row.flag)
def test_what_is_used_instead_is_not_refused_itself(row: leftovers.Leftover) -> None:
    refused = {other.flag for other in leftovers.TABLE}
    assert not refused & set(re.findall(r"--(\w+)", row.instead))


def test_a_value_that_switches_nothing_on_is_fine() -> None:
    assert leftovers.check(parse(["sft", "--train_backend", "transformers", "--sequence_parallel", "false"])) == []


def _another(flag: Flag) -> str:
    if flag.is_switch:
        return str(not flag.default).lower()
    if flag.choices:
        return str(flag.choices[-1])
    return "2" if "int" in flag.kinds else "text"
