"""Weights on disk in either format, of adapters and whole models, and the configuration of an adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from swift.compat.transformers_save_on_each_node import writing_here
from swift.core.errors import SwiftError
from swift.core.safetensors_header import empty, read_header
from swift.params.checkpoint_args import ADAPTER_CONFIG

SHARD = "5GB"
"""Largest file of weights: of a larger one, an upload that breaks off has more to send again."""
CONFIG, WEIGHTS, PICKLED = ADAPTER_CONFIG, "adapter_model.safetensors", "adapter_model.bin"


def write_tensors(tensors: Mapping[str, Tensor], folder: Path, *, safetensors: bool = True) -> None:
    """An adapter's weights, as safetensors or in the older format of PyTorch."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if safetensors:
        save_file(whole, folder / WEIGHTS, {"format": "pt"})
    else:
        _pickle(whole, folder / PICKLED)


def _pickle(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write the older format. Raises CheckFailed for an empty weight, as a checkpoint does of the newer one."""
    for name, tensor in tensors.items():
        if tensor.shape == (0,) and tensor.is_floating_point():
            raise empty(name, path)
    torch.save(dict(tensors), path)


def read_fields(folder: Path) -> dict[str, Any]:
    """adapter_config.json. Raises SwiftError when it cannot be read."""
    path = folder / CONFIG
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SwiftError(f"{path} cannot be read", why=str(error), next="use another checkpoint") from error
    if not isinstance(fields, dict):
        raise SwiftError(f"{path} is not a JSON object", next="use another checkpoint")
    return fields


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """An adapter's weights on the CPU. Raises SwiftError when they are missing or damaged."""
    path = folder / WEIGHTS
    if not path.is_file():
        if (folder / PICKLED).is_file():
            return read_pickle(folder / PICKLED)
        raise SwiftError(f"{folder} has no {WEIGHTS}", next="give a checkpoint folder that training wrote")
    read_header(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise SwiftError(f"{path} cannot be read", why=str(error), next="use another checkpoint") from error


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Tensors on the CPU from the older format of PyTorch; none of its code is run. Raises SwiftError if damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, OSError, RuntimeError, UnpicklingError) as error:
        raise SwiftError(
            f"{path} cannot be read", why=str(error).partition("\n")[0], next="use another checkpoint"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """A JSON file for people to read too."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_model(
    model: PreTrainedModel,
    folder: Path,
    state_dict: Mapping[str, Tensor] | None = None,
    *,
    safetensors: bool = True,
    shard: str = SHARD,
) -> None:
    """Write a whole model into `folder`, in files of at most `shard`. Without `safetensors` its weights go into one
    `pytorch_model.bin`.

    `state_dict` replaces the model's own.
    """
    if safetensors:
        weights = None if state_dict is None else dict(state_dict)
        with writing_here(model):
            model.save_pretrained(folder, state_dict=weights, max_shard_size=shard)
        return
    model.config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    own = model.state_dict() if state_dict is None else dict(state_dict)
    # As `save_pretrained` does: by the names of the files that it came from, which other tools and releases read.
    _pickle(revert_weight_conversion(model, own), folder / "pytorch_model.bin")
