"""Flags that do not count are named, with what does not read them; those that count are not."""

from __future__ import annotations

import pytest

from swift.params.commands import COMMANDS
from swift.params.idle_flags import UNREAD
from swift.params.parse import read

TRAIN = "sft --model_type m --dataset d "
MERGE = "merge-lora --ckpt_dir c --load_args_from_ckpt_dir false "
EXPORT = "export --ckpt_dir c --load_args_from_ckpt_dir false "
EVAL = "eval --eval_url http://h/v1 --eval_dataset ceval "
INFER = "infer --model_type m "


def named(line: str) -> list[str]:
    return [said for said in read(line.split()).warnings if "does not read" in said]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (TRAIN + "--sft_type full --lora_rank 4 --target_modules ALL", "--sft_type full: target_modules lora_rank"),
        (TRAIN + "--sft_type reft --modules_to_save LN", "--sft_type reft: modules_to_save"),
        (TRAIN + "--sft_type vera --boft_block_size 8", "--sft_type vera: boft_block_size"),
        (TRAIN + "--sft_type full --tuner_backend swift", "--sft_type full: tuner_backend"),
        (TRAIN + "--target_regex q --target_modules ALL", "a run with --target_regex: target_modules"),
        (TRAIN + "--streaming_val_size 3", "--streaming false: streaming_val_size"),
        (TRAIN + "--streaming true --max_steps 30 --preprocess_num_proc 2", "--streaming true: preprocess_num_proc"),
        (TRAIN + "--val_dataset v --dataset_test_ratio 0.1", "a run with --val_dataset: dataset_test_ratio"),
        (TRAIN + "--hub_model_id a/b --hub_strategy end", "--push_to_hub false: hub_model_id hub_strategy"),
        (TRAIN + "--loss_scale_config_path agent-flan", "--use_loss_scale false: loss_scale_config_path"),
        (TRAIN + "--evaluation_strategy no --eval_batch_size 2", "--evaluation_strategy no: eval_batch_size"),
        (
            TRAIN + "--evaluation_strategy epoch --eval_steps 9 --save_steps 5",
            "--evaluation_strategy epoch: eval_steps",
        ),
        (TRAIN + "--save_strategy no --save_only_model true", "--save_strategy no: save_only_model"),
        (TRAIN + "--report_to none --logging_dir l", "--report_to none: logging_dir"),
        (TRAIN + "--ignore_data_skip true", "a run from its start: ignore_data_skip"),
        (TRAIN + "--model_name x", "a run without self-cognition rows: model_name"),
        (TRAIN + "--max_steps 30 --num_train_epochs 3", "a run with --max_steps: num_train_epochs"),
        (TRAIN + "--warmup_steps 3 --warmup_ratio 0.1", "a run with --warmup_steps: warmup_ratio"),
        (TRAIN + "--lr_scheduler_type constant --warmup_steps 3", "--lr_scheduler_type constant: warmup_steps"),
        (TRAIN + "--optim adafactor --adam_beta2 0.9", "--optim adafactor: adam_beta2"),
        (TRAIN + "--optim lion_32bit --adam_epsilon 1 --adam_beta1 0.8", "--optim lion_32bit: adam_epsilon"),
        (TRAIN + "--train_dataset_mix_ds x", "--train_dataset_mix_ratio 0: train_dataset_mix_ds"),
        (TRAIN + "--answer_samples 0 --temperature 0.5", "a run that answers nothing: temperature"),
        ("pt --model_type m --dataset d --max_new_tokens 9", "a run that answers nothing: max_new_tokens"),
        ("rlhf --rlhf_type rm --model_type m --dataset d --top_k 9", "a run that answers nothing: top_k"),
        (TRAIN + "--bnb_4bit_quant_type fp4", "--quantization_bit 0: bnb_4bit_quant_type"),
        (
            TRAIN + "--quantization_bit 4 --quant_method hqq --bnb_4bit_quant_type fp4",
            "--quant_method hqq: bnb_4bit_quant_type",
        ),
        (TRAIN + "--quantization_bit 4 --hqq_axis 1", "--quant_method bnb: hqq_axis"),
        (MERGE + "--temperature 1 --infer_backend pt --system s", "swift merge-lora: infer_backend system temperature"),
        (EXPORT + "--quant_bits 4 --gguf_output_dir g", "an export without --to_gguf: gguf_output_dir"),
        (EXPORT + "--merge_lora true --quant_seqlen 9", "--quant_bits 0: quant_seqlen"),
        (EXPORT + "--to_gguf q8_0 --temperature 1", "--to_ollama false: temperature"),
        (EXPORT + "--quant_bits 8 --quant_method bnb --quant_n_samples 9", "--quant_method bnb: quant_n_samples"),
        (
            EXPORT + "--quant_bits 4 --dataset d --max_length 9 --dataset_test_ratio 0.5",
            "--quant_bits: dataset_test_ratio max_length",
        ),
        (MERGE + "--rescale_image 99", "swift merge-lora: rescale_image"),
        (EXPORT + "--to_gguf f16 --rescale_image 99", "swift export: rescale_image"),
        (EXPORT + "--to_peft_format true --system s", "an export that makes no other weights: system"),
        (
            EXPORT + "--push_to_hub true --hub_model_id a/b --dtype bf16",
            "an export that makes no other weights: dtype",
        ),
        (EVAL + "--dtype bf16 --infer_backend pt", "--eval_url: infer_backend dtype"),
        ("eval --model_type m --eval_dataset ceval --eval_nproc 3", "an evaluation without --eval_url: eval_nproc"),
        ("deploy --model_type m --val_dataset v --stream false", "swift deploy: stream val_dataset"),
        ("app-ui --model_type m --verbose true", "swift app-ui: verbose"),
        (INFER + "--verbose true", "a chat: verbose"),
        (INFER + "--val_dataset v --ckpt_dir c --merge_device_map cpu", "--merge_lora false: merge_device_map"),
        (
            INFER + "--val_dataset v --load_args_from_ckpt_dir false",
            "a run without --ckpt_dir: load_args_from_ckpt_dir",
        ),
        (EXPORT + "--to_gguf q8_0 --hf_output_dir h", "swift export: hf_output_dir"),
        (
            INFER + "--val_dataset v --truncation_strategy truncation_left",
            "a command without --max_length: truncation_strategy",
        ),
        (INFER + "--val_dataset v --model_name x", "a run without self-cognition rows: model_name"),
        (INFER + "--val_dataset v --dataset_seed 7", "a run with --val_dataset: dataset_seed"),
        (MERGE + "--merge_lora true", "swift merge-lora: merge_lora"),
        (
            "rlhf --rlhf_type grpo --model_type m --dataset d --reward_funcs format --reward_model_revision r",
            "a run without --reward_model_id_or_path: reward_model_revision",
        ),
        (INFER + "--val_dataset v --save_result false --result_dir r", "--save_result false: result_dir"),
    ],
)
def test_named(line: str, expected: str) -> None:
    why, _, names = expected.rpartition(": ")
    assert named(line) == [f"{why} does not read {', '.join(f'--{name}' for name in names.split())}"]


@pytest.mark.parametrize(
    "line",
    [
        TRAIN + "--sft_type adalora --lora_alpha 8 --lora_bias_trainable all --adalora_init_r 16",
        TRAIN + "--sft_type ia3 --target_modules k_proj --ia3_feedforward_modules down_proj",
        TRAIN + "--lora_rank 4 --lora_dtype fp32 --learning_rate 1",
        TRAIN + "--sft_type adapter --lora_rank 8",  # the value that it has
        TRAIN + "--evaluation_strategy no --eval_steps 9",  # checkpoints follow it
        TRAIN + "--streaming true --max_steps 30 --val_dataset v --preprocess_num_proc 2",
        TRAIN + "--max_steps 30 --temperature 0.5 --max_new_tokens 9",
        TRAIN + "--self_cognition_sample 9 --model_name x --model_author y",
        TRAIN + "--quantization_bit 4 --bnb_4bit_quant_type fp4",
        "pt --model_type m --dataset d --predict_with_generate true --max_new_tokens 9",
        "rlhf --rlhf_type ppo --model_type m --dataset d --max_new_tokens 9",
        MERGE + "--rope_scaling linear --max_length 99",
        MERGE + "--merge_device_map cpu --save_safetensors false --dtype fp32",
        EXPORT + "--to_ollama true --temperature 1 --stop_words a --max_model_len 9 --gguf_min_agreement 0.5",
        EXPORT + "--quant_bits 4 --quant_method gptq --dataset d --quant_seqlen 9",
        EXPORT + "--to_gguf f32 --rope_scaling linear --max_length 99",
        EVAL + "--model_type m --temperature 1 --max_model_len 9 --eval_nproc 3",
        "deploy --model_type m --verbose false --max_length 9 --max_num_seqs 3",
        INFER + "--val_dataset v#9 --dataset_seed 7 --max_length 9 --truncation_strategy truncation_left",
        INFER + "--val_dataset v --verbose true --show_dataset_sample 3 --top_p 0.5",
    ],
)
def test_not_named(line: str) -> None:
    assert named(line) == []


def test_flags_are_those_of_the_command() -> None:
    for command, names in UNREAD.items():
        assert set(names) <= set(COMMANDS[command].flags)
