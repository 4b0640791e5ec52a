"""The state of an optimizer by the names of parameters, so that it is the same however weights lie over processes.

PyTorch numbers parameters in the order in which one process happened to get them. Names are what every number of
processes, and every engine, has in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from swift.core.errors import SwiftError
from swift.training.checkpoints import OPTIMIZER


def groups_of(optimizer: Optimizer, model: nn.Module) -> list[list[str]]:
    """The names of the parameters in each group of an optimizer that was just made."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]


def by_name(state: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """`Optimizer.state_dict()` with names for numbers; what an optimizer adds to the usual two parts stays."""
    groups = [{**group, "params": [names[number] for number in group["params"]]} for group in state["param_groups"]]
    named = {names[number]: values for number, values in state["state"].items()}
    return {**state, "state": named, "param_groups": groups}


def by_number(
    stored: Mapping[str, Any], names: Sequence[Sequence[str]], settings: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A state by name as an optimizer loads it that has these groups, with these settings where nothing is stored.

    Raises SwiftError when it holds other parameters.
    """
    kept = {name: group for group in stored["param_groups"] for name in group["params"]}
    number = {name: place for place, name in enumerate(name for group in names for name in group)}
    if strange := sorted(kept.keys() ^ number.keys()):
        raise SwiftError(
            "the optimizer of the checkpoint does not fit what is trained",
            where="--resume_from_checkpoint",
            why=f"{strange[0]} is trained {'there' if strange[0] in kept else 'here'} only",
            next="give what to train as before, or --resume_only_model true to start anew from its weights",
        )
    groups = [
        {**(kept[group[0]] if group else own), "params": [number[name] for name in group]}
        for group, own in zip(names, settings, strict=True)
    ]
    state = {number[name]: values for name, values in stored["state"].items()}
    return {**stored, "state": state, "param_groups": groups}


def load(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """`Optimizer.load_state_dict`, with every tensor in the dtype it was saved in.

    PyTorch casts them to the dtype of their weight. Adafactor's are fp32 beside weights in bf16: rounded, a resumed run
    would not be the uninterrupted one.
    """
    optimizer.load_state_dict(dict(state))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, values in state["state"].items():
        own = optimizer.state[parameters[number]]
        for name, value in values.items():
            if isinstance(value, Tensor) and value.dtype != own[name].dtype:
                own[name] = value.to(own[name].device)


def read(folder: Path) -> dict[str, Any]:
    """The state in a checkpoint, as pages of its file: all processes of a machine share them."""
    stored: dict[str, Any] = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True, mmap=True)
    return stored
