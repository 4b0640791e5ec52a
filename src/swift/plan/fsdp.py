"""`--fsdp` and `--fsdp_config` decided: FSDP2, in transformers' words, those for FSDP1 included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from swift.core.did_you_mean import suggestion
from swift.core.errors import NotBuilt, SwiftError, raise_together
from swift.core.log import once
from swift.core.machine import Machine
from swift.params.args import Args
from swift.params.groups import Distributed, Galore, Train
from swift.plan.json_flag import json_mapping
from swift.plan.whole_weights import sharded_misfits

FLAG, CONFIG = "--fsdp", "--fsdp_config"
MODES = {"full_shard": True, "shard_grad_op": False}
"""Whether the weights of a layer are let go between its forward and its backward pass."""
OTHER_MODES = {
    "no_shard": f"leave {FLAG} out: every process has all weights then (DDP)",
    "hybrid_shard": f"use {FLAG} full_shard",
    "hybrid_shard_zero2": f"use {FLAG} shard_grad_op",
}
IDLE = {
    "auto_wrap": "layers are always shared out one by one",
    "auto_wrap_policy": "layers are always shared out one by one",
    "backward_prefetch": "the next layer is always fetched ahead",
    "backward_prefetch_policy": "the next layer is always fetched ahead",
    "cpu_ram_efficient_loading": "every process reads the files",
    "forward_prefetch": "the next layer is always fetched ahead",
    "limit_all_gathers": "FSDP2 needs no limit",
    "state_dict_type": "checkpoints are whole",
    "sync_module_states": "every process reads the files",
    "use_orig_params": "FSDP2 knows no others",
    "version": "this is FSDP2",
}
"""Words of FSDP1, and why they have nothing to do here."""
OBEYED = (
    "activation_checkpointing",
    "cpu_offload",
    "offload_params",
    "reshard_after_forward",
    "transformer_layer_cls_to_wrap",
)


@dataclass(frozen=True, kw_only=True)
class FsdpPlan:
    """How weights, gradients and optimizer are shared out."""

    reshards: bool
    """Whether a layer's weights are let go after its forward pass, and fetched again for the backward pass."""
    offloads: bool
    """Whether shares stay on the host while they are not computed with."""
    layers: tuple[str, ...]
    """Classes of the modules that are shared out one by one; none: the decoder layers."""


def plan_fsdp(args: Args, machine: Machine, *, sft_type: str, dtype: str) -> FsdpPlan | None:
    """How the run is shared out. Raises SwiftError for what FSDP2, or this run with it, cannot do."""
    distributed = args[Distributed]
    config = _by_plain_name(json_mapping(distributed.fsdp_config, CONFIG))
    words = str(distributed.fsdp or "").replace(",", " ").split()
    if not words or words == ["false"]:
        if config:
            raise SwiftError(f"{CONFIG} says how, and {FLAG} whether", where=CONFIG, next=f"add {FLAG} full_shard")
        return None
    words = ["full_shard" if word.lower() in ("true", "1") else word for word in words]
    raise_together([*_unknown(words, config), *_misfits(args, machine, sft_type, dtype)])
    for word in (*words, *config):
        if word in IDLE:
            once(f"{CONFIG}: `{word}` has nothing to do: {IDLE[word]}")
    mode = next((word for word in words if word in MODES), "full_shard")
    return FsdpPlan(
        reshards=_reshards(config, mode),
        offloads="offload" in words or _is_true(config, "cpu_offload") or _is_true(config, "offload_params"),
        layers=_layers(config.get("transformer_layer_cls_to_wrap")),
    )


def recomputes(args: Args) -> bool:
    """Whether the configuration asks for activations to be computed again in the backward pass."""
    return _is_true(_by_plain_name(json_mapping(args[Distributed].fsdp_config, CONFIG)), "activation_checkpointing")


def _by_plain_name(config: Mapping[str, Any]) -> dict[str, Any]:
    """accelerate's files have `fsdp_` before each name."""
    return {name.removeprefix("fsdp_"): value for name, value in config.items()}


def _unknown(words: list[str], config: Mapping[str, Any]) -> Iterator[SwiftError]:
    known = (*MODES, *OTHER_MODES, "auto_wrap", "offload")
    for word in words:
        if word in OTHER_MODES:
            yield NotBuilt(f"{FLAG} {word} is not built", where=FLAG, next=OTHER_MODES[word])
        elif word not in known:
            yield SwiftError(
                f"{FLAG} does not know {word!r}",
                where=FLAG,
                next=suggestion(word, known) or f"it knows {', '.join(known)}",
            )
    if len([word for word in words if word in MODES]) > 1:
        yield SwiftError(f"{FLAG} {' '.join(words)} says two things", where=FLAG, next=f"use one of {', '.join(MODES)}")
    names = (*OBEYED, *IDLE)
    for name, value in config.items():
        if name not in names:
            yield SwiftError(
                f"{CONFIG}: `{name}` is nothing that a run goes by",
                where=CONFIG,
                why=f"these are: {', '.join(OBEYED)}",
                next=suggestion(name, names, "`{}`") or "leave it out",
            )
        elif name in ("activation_checkpointing", "cpu_offload", "offload_params") and _truth(value) is None:
            yield SwiftError(f"{CONFIG}: `{name}` is {value!r} and neither true nor false", where=CONFIG)


def _misfits(args: Args, machine: Machine, sft_type: str, dtype: str) -> Iterator[SwiftError]:
    train = args[Train]

    def refused(what: str, why: str, next: str) -> SwiftError:
        return SwiftError(f"{what} does not go together with {FLAG}", where=FLAG, why=why, next=next)

    if machine.world_size == 1:
        yield refused("one process", "there is nobody to share with", "set NPROC_PER_NODE=N")
    if args.values.get("device_map_config"):
        yield refused("--device_map_config", "it lays a model over devices, and FSDP does", "drop one of the two")
    if args[Galore].use_galore or sft_type == "adalora":
        what = "--use_galore" if args[Galore].use_galore else "--sft_type adalora"
        yield refused(what, "it needs whole gradients, of which each process has a share", "use --sft_type lora")
    if train.auto_find_batch_size:
        yield refused("--auto_find_batch_size", "weights are shared out once", "give --batch_size")
    if args.values.get("tuner_backend") == "unsloth":
        yield refused("--tuner_backend unsloth", "Unsloth trains on one GPU", "use --tuner_backend peft")
    if recomputes(args) and args.is_explicit("gradient_checkpointing") and not train.gradient_checkpointing:
        yield SwiftError(
            f"{CONFIG}: `activation_checkpointing` is true, and --gradient_checkpointing says false",
            where=CONFIG,
            next="drop one of the two",
        )
    if dtype == "fp16":
        yield NotBuilt(f"{FLAG} in fp16 is not built yet", where="--dtype", next="use --dtype bf16 or fp32")
    yield from sharded_misfits(args, FLAG, "use --deepspeed default-zero2")


def _reshards(config: Mapping[str, Any], mode: str) -> bool:
    given = config.get("reshard_after_forward", MODES[mode])
    if isinstance(given, str) and given.lower() in MODES:  # as FSDP1 has it
        return MODES[given.lower()]
    truth = _truth(given)
    if truth is None:
        raise SwiftError(f"{CONFIG}: `reshard_after_forward` is {given!r} and neither true nor false", where=CONFIG)
    return truth


def _layers(given: Any) -> tuple[str, ...]:
    if isinstance(given, str):
        return tuple(name.strip() for name in given.split(",") if name.strip())
    return tuple(map(str, given or ()))


def _is_true(config: Mapping[str, Any], name: str) -> bool:
    return bool(_truth(config.get(name, False)))


def _truth(value: Any) -> bool | None:
    text = str(value).lower()
    return {"true": True, "1": True, "false": False, "0": False, "none": False}.get(text)
