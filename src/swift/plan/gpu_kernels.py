"""Liger and Unsloth, whose kernels need a GPU: refused in words where they cannot work. Pure."""

from __future__ import annotations

from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.args import Args
from swift.params.groups import Lora, Train, Tuner
from swift.plan.model import ModelPlan

UNSLOTH_TRAINS = ("lora", "full")
NO_LOSS_LEFT = "the loss never makes all logits at once in any case, which is most of what Liger saves"


def check_kernels(args: Args, machine: Machine, model: ModelPlan) -> None:
    """Raise SwiftError when this machine, or this run, cannot use the library that was asked for."""
    if args[Train].use_liger:
        _require(
            "--use_liger true", "liger_kernel", "pip install liger-kernel", machine, f"leave it out: {NO_LOSS_LEFT}"
        )
    if args[Tuner].tuner_backend == "unsloth":
        _check_unsloth(args, machine, model)


def _check_unsloth(args: Args, machine: Machine, model: ModelPlan) -> None:
    flag, instead = "--tuner_backend unsloth", "use --tuner_backend peft"
    kind = args[Tuner].sft_type
    if kind not in UNSLOTH_TRAINS:
        raise SwiftError(f"{flag} does not train {kind}", where=flag, next=f"{instead}, or --sft_type lora")
    if args[Lora].use_dora:
        raise SwiftError(f"{flag} has no kernels for DoRA", where="--use_dora", next=instead)
    _require(flag, "unsloth", "pip install unsloth", machine, instead)
    if machine.world_size > 1:
        raise SwiftError(f"{flag} works with one process", where=flag, next=f"{instead}, or set NPROC_PER_NODE=1")
    if model.dtype == "fp32":
        raise SwiftError(f"{flag} computes in bf16 or fp16", where="--dtype", next="use --dtype bf16")
    if model.quant is not None and model.quant.method != "bnb":
        raise SwiftError(f"{flag} quantizes with bitsandbytes", where="--quant_method", next="use --quant_method bnb")


def _require(flag: str, module: str, get: str, machine: Machine, instead: str) -> None:
    if machine.device != "cuda":
        raise SwiftError(f"{flag} needs a GPU and this machine computes on {machine.device}", where=flag, next=instead)
    if module not in machine.packages:
        raise SwiftError(f"{flag} needs the package `{module}`, which is not installed", where=flag, next=get)
