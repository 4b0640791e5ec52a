"""Flags that the chosen tuning method does not read are named; those that it reads are not."""

from __future__ import annotations

import pytest

from swift.params.parse import read

TRAIN = "sft --model_type m --dataset d "


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--sft_type full --lora_rank 4 --target_modules ALL", "full does not read --target_modules, --lora_rank"),
        ("--sft_type reft --modules_to_save LN", "reft does not read --modules_to_save"),
        ("--sft_type vera --boft_block_size 8", "vera does not read --boft_block_size"),
        ("--sft_type adalora --lora_alpha 8 --lora_bias_trainable all --adalora_init_r 16", None),
        ("--sft_type ia3 --target_modules k_proj --ia3_feedforward_modules down_proj", None),
        ("--lora_rank 4 --lora_dtype fp32 --learning_rate 1", None),
        ("--sft_type adapter --lora_rank 8", None),  # the value that it has
    ],
)
def test_flags_of_other_methods(words: str, named: str | None) -> None:
    warnings = [line for line in read((TRAIN + words).split()).warnings if "does not read" in line]
    assert warnings == ([] if named is None else [f"--sft_type {named}"])
