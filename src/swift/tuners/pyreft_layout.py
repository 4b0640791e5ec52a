"""ReFT in the files of pyreft, which the 2.5 release writes: one `intkey_….bin` a layer.

LoReFT's hold its rotation as a matrix (width, rank) with orthonormal columns, those of the other kinds as torch's
parametrization of one, by which pyreft trains it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from swift.core.errors import SwiftError
from swift.tuners.interventions import orthonormal
from swift.tuners.tensor_files import PICKLED, WEIGHTS, read_pickle

LAYER = re.compile(r"\[(\d+)\]|^intkey_layer[._](\d+)[._]")
"""The layer's number in the name of a file, however pyvene spelled it since 0.1."""
BUFFERS = ("embed_dim", "interchange_dim")
ROTATION, SOURCE = "rotate_layer.original", "learned_source"
FREE, BASE = "rotate_layer.parametrizations.weight.original", "rotate_layer.parametrizations.weight.0.base"


def is_all(folder: Path) -> bool:
    """Whether `folder` holds such files and none of ours."""
    ours = any((folder / name).is_file() for name in (WEIGHTS, PICKLED))
    return not ours and next(folder.glob("intkey_*.bin"), None) is not None


def read(folder: Path) -> dict[int, dict[str, Tensor]]:
    """Number of each layer -> the tensors of its intervention, as `swift.tuners.interventions` calls them.

    Raises SwiftError for a file that cannot be read or does not say its layer.
    """
    layers: dict[int, dict[str, Tensor]] = {}
    for path in sorted(folder.glob("intkey_*.bin")):
        match = LAYER.search(path.name)
        number = None if match is None else int(match[1] or match[2])
        if number is None or number in layers:
            raise SwiftError(f"{path} does not say which layer it is of", next="use another checkpoint")
        layers[number] = _from_pyreft(read_pickle(path))
    return layers


def write(layers: Mapping[int, Mapping[str, Tensor]], layer_list: str, kind: str, folder: Path) -> None:
    """Write what `read` reads; `kind` is the intervention's name, `layer_list` the path of the model's layers.

    Of the free matrix behind a rotation only the rotation is in them. Their names are those of pyvene 0.1.8.
    """
    for number, tensors in layers.items():
        component = f"{layer_list}[{number}].output".replace(".", "_")
        path = folder / f"intkey_comp_{component}_unit_pos_nunit_1#0.bin"
        torch.save(_to_pyreft({name: tensor.cpu() for name, tensor in tensors.items()}, kind), path)


def _from_pyreft(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    own = {name: tensor for name, tensor in tensors.items() if name not in BUFFERS}
    if "rotate_layer" in own:  # LoReFT
        renamed = {"rotate_layer": ROTATION, "weight": f"{SOURCE}.weight", "bias": f"{SOURCE}.bias"}
        return {renamed.get(name, name): tensor for name, tensor in own.items()}
    if FREE in own:
        own[ROTATION] = _columns(own.pop(FREE), own.pop(BASE))
    return own


def _to_pyreft(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    if ROTATION in tensors:
        tensors[ROTATION] = orthonormal(tensors[ROTATION].float())
    if kind == "LoreftIntervention":
        renamed = {ROTATION: "rotate_layer", f"{SOURCE}.weight": "weight", f"{SOURCE}.bias": "bias"}
        return {renamed[name]: tensor for name, tensor in tensors.items()}
    if ROTATION in tensors:
        width, rank = tensors[ROTATION].shape
        holder = _holder(width, rank)
        holder.weight = tensors.pop(ROTATION)  # its right inverse
        tensors |= {f"rotate_layer.{name}": tensor for name, tensor in holder.state_dict().items()}
    else:
        width = tensors["proj_layer.weight"].shape[1]
    return {**tensors, **{name: torch.tensor(width) for name in BUFFERS}}


def _columns(free: Tensor, base: Tensor) -> Tensor:
    """The matrix with orthonormal columns that torch's parametrization stands for."""
    holder = _holder(*free.shape)
    holder.load_state_dict({"parametrizations.weight.original": free, "parametrizations.weight.0.base": base})
    with torch.no_grad():
        return holder.weight.clone()


def _holder(width: int, rank: int) -> nn.Linear:
    """A layer with a weight (width, rank) that is parametrized."""
    layer = nn.Linear(rank, width, bias=False)
    nn.utils.parametrizations.orthogonal(layer)
    return layer
