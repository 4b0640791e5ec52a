"""Which part of a model lies on which device: what `--device_map_config` says, checked before any weight is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.args import Args
from swift.params.commands import TRAINING
from swift.params.groups import Model
from swift.plan.json_flag import json_mapping

FLAG = "--device_map_config"
WEIGHTLESS = ("disk", "meta")
"""Places where layers lie without a gradient."""
SHARED = ("auto", "balanced", "balanced_low_0", "sequential")
"""Words that lay a model over all devices."""
_DEVICE = re.compile(r"(cpu|cuda|npu|mps)(?::(\d+))?")


def plan_device_map(args: Args, model: Model, machine: Machine) -> str | Mapping[str, Any] | None:
    """A map module by module where one is given, else what the machine has. Raises SwiftError for what cannot be."""
    if model.device_map_config:
        given = json_mapping(model.device_map_config, FLAG)
        if not given:
            raise SwiftError(f"{FLAG} says nothing", where=FLAG, next="leave it out, or name parts and their devices")
        for module, device in given.items():
            _check(module, device, machine, FLAG)
        return _trainable(given, machine) if args.command in TRAINING else given
    if machine.device == "cpu":
        return None
    if machine.world_size > 1:
        return {"": f"{machine.device}:{machine.local_rank}"}
    return "auto"


def require_place(place: str | None, flag: str, machine: Machine) -> None:
    """Raise SwiftError for a place of the whole model that is none, or that this machine has not."""
    if place is not None and place not in SHARED:
        _check("", int(place) if place.isdecimal() else place, machine, flag)


def _check(module: str, device: object, machine: Machine, flag: str) -> None:
    number, kind = None, machine.device
    if isinstance(device, int) and not isinstance(device, bool):
        number = device
    elif isinstance(device, str) and (found := _DEVICE.fullmatch(device)):
        kind, number = found[1], int(found[2] or 0)
    elif device not in WEIGHTLESS:
        raise SwiftError(
            f"{flag} puts {module or 'the model'} on {device!r}, which is no device",
            where=flag,
            next='a device is a number, "cpu", "disk", or a name like "cuda:0"',
        )
    if number is None or (kind == "cpu" and device != number):
        return
    count = machine.device_count if kind == machine.device else 0
    if not 0 <= number < count:
        raise SwiftError(
            f"{flag} puts {module or 'the model'} on device {device}, which is not here",
            where=flag,
            why=f"there are {count} of {kind}, counted from 0" if count else "there is no such accelerator",
            next='use "cpu", or look whether CUDA_VISIBLE_DEVICES hides it',
        )


def _trainable(given: Mapping[str, Any], machine: Machine) -> dict[str, Any]:
    """A map for training, whose numbers count from the process's own device. Raises SwiftError for what cannot be."""
    idle = sorted(module for module, device in given.items() if device in WEIGHTLESS)
    if idle:
        raise SwiftError(
            f"{FLAG} puts {idle[0] or 'the model'} where nothing is trained",
            where=FLAG,
            why="layers on disk or without weights get no gradient, without an error",
            next='use "cpu", or --fsdp "full_shard offload" with several processes',
        )
    if machine.world_size > 1 and len(set(given.values())) > 1:
        raise SwiftError(
            f"{FLAG} lays the model of each process over several devices",
            where=FLAG,
            why="several processes train with a device each",
            next="unset NPROC_PER_NODE, or leave it out and share weights out with --fsdp full_shard",
        )
    return {name: device + machine.local_rank if type(device) is int else device for name, device in given.items()}
