"""A hundred ways to get a flag wrong, and what was meant."""

from __future__ import annotations

import re

import pytest

from swift.core.errors import SwiftError
from swift.params.commands import COMMANDS, find_command
from swift.params.flag_synonyms import BY_ITSELF, FOREIGN
from swift.params.parse import parse
from swift.params.unknown_flags import unknown_flag

TYPOS = """
sft lerning_rate learning_rate
sft leraning_rate learning_rate
sft learningrate learning_rate
sft learning_rates learning_rate
sft learning-rte learning_rate
sft lr learning_rate
sft peak_lr learning_rate
sft rate_learning learning_rate
sft lora_rnak lora_rank
sft lora_ranks lora_rank
sft lorarank lora_rank
sft lora_r lora_rank
sft rank lora_rank
sft lora_alhpa lora_alpha
sft lora_drop_out lora_dropout
sft lora_target target_modules
sft target_module target_modules
sft target_moduels target_modules
sft modules_to_svae modules_to_save
sft sft_typ sft_type
sft sfttype sft_type
sft sft_tpye sft_type
sft train_type sft_type
sft tuner_type sft_type
sft finetuning_type sft_type
sft model model_id_or_path
sft model_name_or_path model_id_or_path
sft model_id model_id_or_path
sft model_id_or_pth model_id_or_path
sft base_model model_id_or_path
sft model_typ model_type
sft modeltype model_type
sft datset dataset
sft dataste dataset
sft datasets dataset
sft train_dataset dataset
sft data_path dataset
sft val_datset val_dataset
sft eval_dataset val_dataset
sft split_dataset_ratio dataset_test_ratio
sft val_size dataset_test_ratio
sft dataset_test_ration dataset_test_ratio
sft max_lenght max_length
sft max_len max_length
sft maxlength max_length
sft cutoff_len max_length
sft max_seq_length max_length
sft truncation_stategy truncation_strategy
sft num_train_epoch num_train_epochs
sft num_epochs num_train_epochs
sft epochs num_train_epochs
sft num_trian_epochs num_train_epochs
sft max_step max_steps
sft bath_size batch_size
sft batchsize batch_size
sft batch_szie batch_size
sft micro_batch_size batch_size
sft per_device_batch_size batch_size
sft per_device_train_batchsize batch_size
sft gradient_accumulation_step gradient_accumulation_steps
sft grad_accumulation_steps gradient_accumulation_steps
sft gradient_acumulation_steps gradient_accumulation_steps
sft gradient_checkpoint gradient_checkpointing
sft gradient_chekpointing gradient_checkpointing
sft warm_up_ratio warmup_ratio
sft warmup_ration warmup_ratio
sft weigth_decay weight_decay
sft weightdecay weight_decay
sft lr_scheduler lr_scheduler_type
sft lr_schedular_type lr_scheduler_type
sft optimizer optim
sft eval_step eval_steps
sft evalsteps eval_steps
sft save_step save_steps
sft save_total_limits save_total_limit
sft logging_step logging_steps
sft loging_steps logging_steps
sft output_dri output_dir
sft outputdir output_dir
sft out_dir output_dir
sft resume_from_checkpiont resume_from_checkpoint
sft resume resume_from_checkpoint
sft deepseed deepspeed
sft deep_speed deepspeed
sft torch_dtype dtype
sft dtpye dtype
sft quant_bits quantization_bit
sft quantization_bits quantization_bit
sft load_in_4bit quantization_bit
sft flash_attn use_flash_attn
sft use_flash_attention use_flash_attn
sft templete_type template_type
sft template template_type
sft sytem system
sft system_prompt system
sft packign packing
sft report_too report_to
sft neftune_noise_apha neftune_noise_alpha
sft lazy_tokenise lazy_tokenize
sft preproces_num_proc preprocess_num_proc
sft loraplus_lr_ratio lora_lr_ratio
infer ckpt_dri ckpt_dir
infer ckptdir ckpt_dir
infer checkpoint_dir ckpt_dir
infer adapters ckpt_dir
infer infer_backed infer_backend
infer temprature temperature
infer top-pp top_p
infer max_tokens max_new_tokens
infer max_new_token max_new_tokens
infer load_dataset_cfg load_dataset_config
infer show_dataset_samples show_dataset_sample
infer gpu_memory_utilisation gpu_memory_utilization
infer vllm_max_model_len max_model_len
infer tensor_paralel_size tensor_parallel_size
infer merge_loar merge_lora
export quant_bit quant_bits
export quantbits quant_bits
export to_olama to_ollama
deploy apikey api_key
deploy prot port
deploy served_model served_model_name
rlhf rlhf_tpye rlhf_type
rlhf pref_beta beta
rlhf ref_model ref_model_id_or_path
rlhf simpo_gama simpo_gamma
eval eval_datasets eval_dataset
"""
CASES = [line.split() for line in TYPOS.split("\n") if line]


def suggestion(command: str, typo: str) -> str | None:
    found = re.search(r"--(\w+)", unknown_flag(COMMANDS[command], typo.replace("-", "_")).next or "")
    return found.group(1) if found else None


@pytest.mark.parametrize(("command", "typo", "meant"), CASES, ids=[" ".join(case[:2]) for case in CASES])
def test_the_flag_that_was_meant(command: str, typo: str, meant: str) -> None:
    assert suggestion(command, typo) == meant


def _slips(name: str) -> set[str]:
    middle = len(name) // 2
    swapped = name[: middle - 1] + name[middle] + name[middle - 1] + name[middle + 1 :]
    return {
        swapped,
        name[:middle] + name[middle + 1 :],
        name[:middle] + name[middle] + name[middle:],
        name[:-1],
        name + "s",
        name.replace("_", ""),
        "_".join(reversed(name.split("_", 1))),
    }


@pytest.mark.parametrize("command", ["sft", "infer", "export", "deploy", "eval"])
def test_slips_of_the_fingers(command: str) -> None:
    flags = COMMANDS[command].flags
    wrong, total = [], 0
    for name, flag in list(flags.items())[::5]:
        if flag.alias_of or len(name) < 5:
            continue
        for slip in _slips(name) - set(flags):
            total += 1
            if suggestion(command, slip) != name:
                wrong.append((slip, name))
    assert len(wrong) <= 0.02 * total, wrong


@pytest.mark.parametrize(
    ("command", "flag", "owner"),
    [
        ("sft", "ckpt_dir", "infer"),
        ("sft", "rlhf_type", "rlhf"),
        ("sft", "quant_output_dir", "export"),
        ("infer", "learning_rate", "sft"),
        ("infer", "api_key", "deploy"),
        ("web-ui", "model_type", "sft"),
        ("sft", "lang", "web-ui"),
    ],
)
def test_flags_of_another_command(command: str, flag: str, owner: str) -> None:
    error = unknown_flag(COMMANDS[command], flag)
    assert "that flag belongs to" in str(error)
    assert f"`{owner}`" in str(error)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("stf", "sft"),
        ("infre", "infer"),
        ("inference", "infer"),
        ("merge", "merge-lora"),
        ("deply", "deploy"),
        ("evla", "eval"),
    ],
)
def test_commands(typo: str, meant: str) -> None:
    with pytest.raises(SwiftError, match=f"did you mean `swift {meant}`"):
        find_command(typo)


@pytest.mark.parametrize(
    ("flag", "typo", "meant"),
    [
        ("sft_type", "lora+", "lora"),
        ("sft_type", "ful", "full"),
        ("sft_type", "qlora", "lora"),
        ("sft_type", "adolora", "adalora"),
        ("dtype", "bfloat16", "bf16"),
        ("dtype", "float32", "fp32"),
        ("quant_method", "bitsandbytes", "bnb"),
        ("truncation_strategy", "left", "truncation_left"),
        ("evaluation_strategy", "step", "steps"),
        ("hub_strategy", "everysave", "every_save"),
        ("tools_prompt", "react", "react_en"),
        ("ddp_backend", "glo", "gloo"),
    ],
)
def test_choices(flag: str, typo: str, meant: str) -> None:
    with pytest.raises(SwiftError, match=f"did you mean `{meant}`"):
        parse(["sft", f"--{flag}", typo])


def test_nothing_alike_points_to_the_list() -> None:
    assert "--help-all" in str(unknown_flag(COMMANDS["sft"], "xyzzy"))


def test_what_needs_no_flag_is_said() -> None:
    for name, instead in BY_ITSELF.items():
        assert unknown_flag(COMMANDS["sft"], name).next == instead
        assert all(flag in COMMANDS["sft"].flags for flag in re.findall(r"--(\w+)", instead))
        assert name not in COMMANDS["sft"].flags and name not in FOREIGN
