"""What 2.5 has in its code for backends that are not part of it, and no page of it explains: refused, with what to use.
Its environment variables that nothing reads are named.

A row names the flag, the commands (all when empty), the values (any but the default when empty), what they were for,
and the way to the same end.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from swift.core.errors import SwiftError
from swift.params.args import Args
from swift.params.frozen import Frozen
from swift.params.values import shown

_TRAIN = ("sft", "pt", "rlhf")
_SEVERAL = (
    "NPROC_PER_NODE=N swift … trains on N devices; --sft_type lora and --quantization_bit 4 make large models fit"
)
_MEGATRON = "the Megatron backend"


class Leftover(Frozen):
    """A flag without work behind it."""

    flag: str
    what: str
    instead: str
    commands: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()


TABLE: tuple[Leftover, ...] = (
    Leftover("train_backend", values=("megatron",), what=_MEGATRON, instead=f"leave it out; {_SEVERAL}"),
    Leftover("tp", commands=_TRAIN, what=_MEGATRON, instead=f"leave it out; {_SEVERAL}"),
    Leftover("pp", what=_MEGATRON, instead=f"leave it out; {_SEVERAL}"),
    Leftover(
        "sequence_parallel", what=_MEGATRON, instead="leave it out; --gradient_checkpointing true lets longer rows fit"
    ),
    Leftover("fsdp_num", what="TorchAcc", instead=f"leave it out; {_SEVERAL}"),
    Leftover("model_layer_cls_name", what="TorchAcc", instead=f"leave it out; {_SEVERAL}"),
    Leftover("to_megatron", what=_MEGATRON, instead="convert the folder with Megatron-Bridge, which reads it as it is"),
    Leftover(
        "local_repo_path",
        what="the code of mPLUG-Owl, DeepSeek-VL, Yi-VL and LLaVA in repositories of their own",
        instead="leave it out; a --model_type that needs such code names a model of the same kind that does not",
    ),
    Leftover(
        "vision_batch_size",
        what="towers that LMDeploy ran beside its engine",
        instead="leave it out; its engine computes the images of a step together",
    ),
    Leftover("to_hf", what=_MEGATRON, instead="convert with Megatron-Bridge, and give swift the folder that it writes"),
)

IDLE_FLAGS = ("megatron_output_dir", "hf_output_dir")
"""Flags that only matter with work that the table refuses."""
VARIABLES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "LOG_LEVEL": ("INFO", "every line is written, to standard error"),
        "USE_TORCHACC": ("0", f"TorchAcc is not used here; {_SEVERAL}"),
        "PAI_OUTPUT_TENSORBOARD": ("", "--logging_dir says where curves are written"),
    }
)
"""Environment variables of 2.5 that nothing reads: the value that says nothing new, and what is the case instead."""


def notes(env: Mapping[str, str] = os.environ) -> list[str]:
    """One line for each variable of 2.5 that does not count."""
    return [
        f"the environment variable {name} does not count: {instead}"
        for name, (usual, instead) in VARIABLES.items()
        if env.get(name, usual).upper() not in ("", usual)
    ]


def check(args: Args) -> list[SwiftError]:
    """One error for each leftover that the user gave a value of its own."""
    return [
        SwiftError(
            f"--{row.flag} {shown(args.values[row.flag])} belongs to {row.what}, which is not used here",
            next=row.instead,
        )
        for row in TABLE
        if _applies(row, args)
    ]


def _applies(row: Leftover, args: Args) -> bool:
    """Whether the user gave the flag one of the row's values: a script may spell out what is the case anyway."""
    if row.flag not in args.values or (row.commands and args.command not in row.commands):
        return False
    if not args.changed(row.flag) or args.origins[row.flag] == "command":
        return False
    given = args.values[row.flag]
    return (given.lower() if isinstance(given, str) else given) in row.values if row.values else bool(given)
