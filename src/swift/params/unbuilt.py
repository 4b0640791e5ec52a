"""What the contract has and this release does not do yet: refused in one line, never ignored.

A row names the commands (all when empty), the flag, the values that are not built (any value but the default when
empty), and what is missing. Delete the row when the work is done.
"""

from __future__ import annotations

from typing import Any

from swift.core.errors import NotBuilt
from swift.params.args import Args
from swift.params.commands import COMMANDS
from swift.params.frozen import Frozen

_TRAIN = ("sft", "pt", "rlhf")


class Missing(Frozen):
    """One piece of work that does not exist yet."""

    flag: str
    what: str
    commands: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()


TABLE: tuple[Missing, ...] = (
    Missing("deepspeed", "DeepSpeed"),
    Missing("fsdp", "FSDP"),
    Missing("fsdp_config", "FSDP"),
    Missing("fsdp_num", "FSDP"),
    Missing("model_layer_cls_name", "FSDP"),
    Missing("sequence_parallel_size", "sequence parallelism"),
    Missing("sequence_parallel", "sequence parallelism"),
    Missing("tp", "the megatron backend", commands=_TRAIN),
    Missing("pp", "the megatron backend"),
    Missing("vit_use_gc", "training multimodal models", values=(False,)),
    Missing("train_backend", "the megatron backend", values=("megatron",)),
    Missing("rescale_image", "multimodal models"),
    Missing("local_repo_path", "models with code in a repository of their own"),
    Missing("quant_bits", "quantizing after training"),
    Missing("gguf_file", "loading GGUF weights"),
    Missing("to_megatron", "the conversion to megatron"),
    Missing("to_hf", "the conversion from megatron"),
)

IDLE_FLAGS = (
    *("quant_method", "quant_n_samples", "quant_seqlen", "quant_batch_size", "quant_device_map", "quant_output_dir"),
    *("megatron_output_dir", "hf_output_dir"),
)
"""Flags that only matter with work that the table refuses."""


def check(args: Args) -> list[NotBuilt]:
    """One error for each value the user gave whose work is missing."""
    return [
        NotBuilt(f"--{row.flag} {_shown(args.values[row.flag])}: {row.what} is not built yet", next=_instead(row, args))
        for row in TABLE
        if _applies(row, args)
    ]


def _applies(row: Missing, args: Args) -> bool:
    if row.flag not in args.values or (row.commands and args.command not in row.commands):
        return False
    if not args.changed(row.flag) or args.origins[row.flag] == "command":
        return False
    value = args.values[row.flag]
    return (value.lower() if isinstance(value, str) else value) in row.values if row.values else bool(value)


def _instead(row: Missing, args: Args) -> str:
    built = [choice for choice in COMMANDS[args.command].flags[row.flag].choices if choice not in row.values]
    return f"use {' or '.join(map(str, built))}" if built and row.values else "leave it out"


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
