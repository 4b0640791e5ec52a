"""`--deepspeed` decided: a whole configuration, in which the flags stand for everything that is theirs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import swift.catalog
from swift.core.did_you_mean import suggestion
from swift.core.errors import SwiftError, raise_together
from swift.core.log import once
from swift.core.machine import Machine
from swift.params.args import Args
from swift.params.groups import Distributed, Galore, Optim, Train
from swift.params.groups.distributed import PRESETS
from swift.plan.json_flag import json_mapping
from swift.plan.whole_weights import sharded_misfits

FLAG = "--deepspeed"
PRESET_FILES = Path(swift.catalog.__file__).parent / "deepspeed"
ELEMENTWISE = {"adamw_torch": ("Adam", "AdamW"), "adamw_torch_fused": ("Adam", "AdamW"), "sgd": ("SGD",)}
"""Optimizers that step each number by itself, so flat pieces of weights will do, and DeepSpeed's names of them."""
LEFT_TO_FLAGS = {
    "optimizer": "--optim and --learning_rate",
    "scheduler": "--lr_scheduler_type, --warmup_ratio and --warmup_steps",
    "activation_checkpointing": "--gradient_checkpointing",
}
"""Sections that are left out, and the flags that decide instead."""
OBEYED = (
    *LEFT_TO_FLAGS,
    "aio",
    "bf16",
    "comms_logger",
    "communication_data_type",
    "disable_allgather",
    "dump_state",
    "flops_profiler",
    "fp16",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "memory_breakdown",
    "steps_per_print",
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "wall_clock_breakdown",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
    "zero_optimization",
)
"""What a configuration may hold. DeepSpeed passes over names that it does not know, and has others that change what is
trained behind the flags' back."""


@dataclass(frozen=True, kw_only=True)
class ZeroPlan:
    """DeepSpeed's ZeRO with nothing left to decide but what depends on the model."""

    stage: Literal[1, 2, 3]
    """1 shares out the optimizer, 2 its gradients too, 3 the weights as well."""
    offloads: bool
    config: Mapping[str, Any]


def plan_deepspeed(
    args: Args,
    machine: Machine,
    *,
    batch_size: int,
    accumulation: int,
    learning_rate: float,
    dtype: str,
    sft_type: str,
) -> ZeroPlan | None:
    """The configuration of the run. Raises SwiftError for what ZeRO, or this run with it, cannot do."""
    given = args[Distributed].deepspeed
    if not given:
        return None
    if "deepspeed" not in machine.packages:
        raise SwiftError(f"{FLAG} needs the package deepspeed", where=FLAG, next="pip install 'swift-llm[deepspeed]'")
    config = _preset(given) if given in PRESETS else json_mapping(given, FLAG)
    raise_together(list(_malformed(config)))
    zero = config["zero_optimization"]
    stage: Literal[1, 2, 3] = zero["stage"]
    flags = _of_flags(args, batch_size, accumulation, machine.world_size, dtype)
    raise_together(
        [
            *_misfits(args, machine, stage, sft_type, dtype),
            *_contradictions(config, {**flags, **_of_optimizer(args, learning_rate, config)}),
        ]
    )
    _say_left_out(config)
    return ZeroPlan(
        stage=stage,
        offloads=any(_device(zero, part) != "none" for part in ("offload_optimizer", "offload_param")),
        config={
            # DeepSpeed's Adam on the CPU is compiled at the first start. Where all is on the CPU, PyTorch's does.
            "zero_force_ds_cpu_optimizer": machine.device != "cpu",
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 10**9,
            **{name: value for name, value in config.items() if name not in LEFT_TO_FLAGS},
            **{path: value for path, value in flags.items() if path not in PRECISIONS},
            **_precision(dtype),
        },
    )


def _say_left_out(config: Mapping[str, Any]) -> None:
    """Name the sections that are left out, with what they say that no flag was compared with."""
    for section, flags in LEFT_TO_FLAGS.items():
        if section not in config:
            continue
        params = config[section].get("params", {})
        said = {f"{section}.{name}": value for name, value in config[section].items() if name != "params"}
        said |= {f"{section}.params.{name}": value for name, value in params.items()}
        own = [
            f"{path.rpartition('.')[2]} {json.dumps(value)}"
            for path, value in said.items()
            if path not in FLAGS_OF and value not in ("auto", None, False)
        ]
        once(
            f"{FLAG}: `{section}` is left out{', whatever its ' + ', '.join(own) if own else ''}; what counts: {flags}"
        )


def _preset(name: Any) -> dict[str, Any]:
    preset: dict[str, Any] = json.loads((PRESET_FILES / f"{name}.json").read_text(encoding="utf-8"))
    return preset


def _malformed(config: Mapping[str, Any]) -> Iterator[SwiftError]:
    """What is no configuration of ZeRO. DeepSpeed itself looks at the fields of `zero_optimization`."""
    for name, value in config.items():
        if name not in OBEYED:
            yield SwiftError(
                f"{FLAG}: `{name}` is nothing that a run goes by",
                where=FLAG,
                why=f"these are: {', '.join(OBEYED)}",
                next=suggestion(name, OBEYED, "`{}`") or "leave it out",
            )
        elif name in SECTIONS and not isinstance(value, Mapping):
            yield _no_object(name, value)
        elif name in LEFT_TO_FLAGS and not isinstance(value.get("params", {}), Mapping):
            yield _no_object(f"{name}.params", value["params"])
    zero = config.get("zero_optimization", {})
    stage = zero.get("stage", "missing") if isinstance(zero, Mapping) else 0
    if isinstance(zero, Mapping) and (stage not in (1, 2, 3) or isinstance(stage, (bool, float))):
        yield SwiftError(
            f"{FLAG}: zero_optimization.stage is {stage if stage == 'missing' else json.dumps(stage)}",
            where=FLAG,
            why="without a stage of 1, 2 or 3 nothing is shared out, which is what DDP does",
            next=f"leave {FLAG} out, or use one of {', '.join(PRESETS)}",
        )
    elif isinstance(zero, Mapping) and stage < 3 and _device(zero, "offload_param") != "none":
        yield SwiftError(
            f"{FLAG}: zero_optimization.offload_param does nothing at stage {stage}",
            where=FLAG,
            why="each process computes with all weights, so they stay on its device",
            next="use offload_optimizer, or stage 3",
        )


def _no_object(name: str, value: Any) -> SwiftError:
    next = f"write it as {{…}}, or leave out `{name}`"
    return SwiftError(f"{FLAG}: `{name}` is {json.dumps(value)} and no object", where=FLAG, next=next)


SECTIONS = ("zero_optimization", *LEFT_TO_FLAGS, "bf16", "fp16")


def _misfits(args: Args, machine: Machine, stage: int, sft_type: str, dtype: str) -> Iterator[SwiftError]:
    """What of the run does not go together with ZeRO at this stage."""
    train, values = args[Train], args.values

    def refused(what: str, why: str, next: str) -> SwiftError:
        return SwiftError(f"{what} does not go together with {FLAG}", where=FLAG, why=why, next=next)

    if args[Distributed].fsdp:
        yield refused("--fsdp", "both share the model out", "drop one of the two")
    if values.get("device_map_config"):
        yield refused("--device_map_config", "it lays a model over devices, and ZeRO does", "drop one of the two")
    if args[Galore].use_galore or sft_type == "adalora":
        what = "--use_galore" if args[Galore].use_galore else "--sft_type adalora"
        yield refused(what, "it needs whole gradients, of which each process has a share", "use --sft_type lora")
    if args[Optim].optim not in ELEMENTWISE:
        yield refused(
            f"--optim {args[Optim].optim}",
            "it may look at whole matrices, and gets flat shares of them",
            f"use {' or '.join(ELEMENTWISE)}",
        )
    if train.auto_find_batch_size:
        yield refused("--auto_find_batch_size", "the engine is set up for one size of batch", "give --batch_size")
    if values.get("tuner_backend") == "unsloth":
        yield refused("--tuner_backend unsloth", "Unsloth trains on one GPU", "use --tuner_backend peft")
    if machine.world_size == 1:
        yield refused("one process", "there is nobody to share with", "set NPROC_PER_NODE=N")
    if dtype == "fp16":
        why = "DeepSpeed clips gradients before it takes their scale off, so that next to nothing is learned"
        yield refused("--dtype fp16", why, "use --dtype bf16 or fp32")
    if stage == 3:
        yield from sharded_misfits(args, f"{FLAG} at stage 3", f"use {FLAG} default-zero2")


PRECISIONS = ("bf16.enabled", "fp16.enabled")
FLAGS_OF = {
    "train_micro_batch_size_per_gpu": "--batch_size",
    "gradient_accumulation_steps": "--gradient_accumulation_steps",
    "train_batch_size": "--batch_size, --gradient_accumulation_steps and the number of processes",
    "gradient_clipping": "--max_grad_norm",
    "bf16.enabled": "--dtype",
    "fp16.enabled": "--dtype",
    "optimizer.type": "--optim",
    "optimizer.params.lr": "--learning_rate",
    "optimizer.params.weight_decay": "--weight_decay",
    "optimizer.params.eps": "--adam_epsilon",
    "optimizer.params.betas": "--adam_beta1 and --adam_beta2",
    "scheduler.params.warmup_max_lr": "--learning_rate",
}
"""The flags that decide a field, by its path."""


def _of_flags(args: Args, batch: int, accumulation: int, processes: int, dtype: str) -> dict[str, Any]:
    """The fields that flags decide, by their path."""
    return {
        "train_micro_batch_size_per_gpu": batch,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": batch * accumulation * processes,
        "gradient_clipping": args[Optim].max_grad_norm,
        "bf16.enabled": dtype == "bf16",
        "fp16.enabled": dtype == "fp16",
    }


def _of_optimizer(args: Args, learning_rate: float, config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of sections that are left out, which may not say otherwise for that."""
    optim = args[Optim]
    names = ELEMENTWISE.get(optim.optim, ())
    kind = config.get("optimizer", {}).get("type")
    return {
        "optimizer.type": kind if kind in names else " or ".join(names),
        "optimizer.params.lr": learning_rate,
        "optimizer.params.weight_decay": optim.weight_decay,
        "optimizer.params.eps": optim.adam_epsilon,
        "optimizer.params.betas": [optim.adam_beta1, optim.adam_beta2],
        "scheduler.params.warmup_max_lr": learning_rate,
    }


def _contradictions(config: Mapping[str, Any], flags: Mapping[str, Any]) -> Iterator[SwiftError]:
    """Where the configuration says otherwise than the flags."""
    for path, value in flags.items():
        given: Any = config
        for part in path.split("."):
            given = given.get(part, "auto") if isinstance(given, Mapping) else "auto"
        if given not in ("auto", value):
            yield SwiftError(
                f"{FLAG}: {path} is {json.dumps(given)}, and {FLAGS_OF[path]} {_says(path, value)}",
                where=FLAG,
                next='make it "auto", or change the flag',
            )


def _says(path: str, value: Any) -> str:
    if path in PRECISIONS:
        return "says otherwise"
    return f"{'say' if ' and ' in FLAGS_OF[path] else 'says'} {json.dumps(value)}"


def _precision(dtype: str) -> dict[str, Any]:
    """As one process computes: weights stay what they are, and layers are computed in bf16.

    DeepSpeed's own way would have adapters in bf16 too. Gradients are added up in the precision of their weights.
    """
    off = {"enabled": False}
    if dtype == "fp32":
        return {"bf16": off, "fp16": off}
    autocast = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    return {"bf16": off, "fp16": off, "torch_autocast": autocast}


def _device(zero: Mapping[str, Any], part: str) -> str:
    section = zero.get(part) or {}
    return str(section.get("device", "none")) if isinstance(section, Mapping) else "none"
