"""PiSSA and OLoRA: the starting factors that were taken out of the base weights, kept with the adapter.

These methods start A and B from a factorisation of the base weight W and train on W - scaling * B0 A0. PEFT factorises
again when it loads such an adapter, which does not repeat for the randomised PiSSA. Here the starting factors are saved
beside the adapter and subtracted again, so a reloaded model is the trained one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from swift.compat.peft_3711 import names_as_given
from swift.core.errors import SwiftError
from swift.core.safetensors_header import read_header

FILE = "initial_factors.safetensors"


def takes_from_base(config: peft.PeftConfig) -> bool:
    """Whether the method changes the base weights when it starts."""
    return isinstance(config, peft.LoraConfig) and str(config.init_lora_weights).startswith(("pissa", "olora"))


def remember(model: peft.PeftModel) -> None:
    """Keep the factors as they are now, right after attaching, in buffers that no state dict holds."""
    for _, layer in _layers(model):
        _keep(layer, layer.lora_A["default"].weight, layer.lora_B["default"].weight)


def make(model: PreTrainedModel, config: peft.PeftConfig) -> dict[str, Tensor]:
    """The factors that PEFT starts from on this base, which is changed by it."""
    config = copy.deepcopy(config)
    config.base_model_name_or_path = model.name_or_path or None
    with names_as_given(model):
        tuned = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    remember(tuned)
    return _remembered(tuned)


def write(model: peft.PeftModel, folder: Path) -> None:
    """Save the remembered factors, if there are any."""
    factors = _remembered(model)
    if factors:
        save_file(factors, folder / FILE, {"format": "pt"})


def read(folder: Path) -> dict[str, Tensor] | None:
    """The factors an earlier `write` left in `folder`, or None."""
    path = folder / FILE
    if not path.is_file():
        return None
    read_header(path)
    return load_file(path)


def take_out(model: peft.PeftModel, factors: Mapping[str, Tensor]) -> None:
    """Subtract scaling * B0 A0 from each base weight, as the method did when training began, and remember them."""
    for name, layer in _layers(model):
        if f"{name}.A" not in factors:
            raise SwiftError(f"{FILE} has no factors for {name}", next="use a whole checkpoint")
        base: Any = layer.get_base_layer()
        A, B = (factors[f"{name}.{factor}"].to(base.weight.device) for factor in "AB")
        product = layer.scaling["default"] * B @ A
        with torch.no_grad():
            weight = base.weight.float() - (product.T if isinstance(base, Conv1D) else product)
            base.weight.copy_(weight.to(base.weight.dtype))
        _keep(layer, A, B)


def _remembered(model: peft.PeftModel) -> dict[str, Tensor]:
    factors: dict[str, Tensor] = {}
    for name, layer in _layers(model):
        buffers = dict(layer.named_buffers(recurse=False))
        if "initial_A" in buffers:
            factors[f"{name}.A"] = buffers["initial_A"].contiguous()
            factors[f"{name}.B"] = buffers["initial_B"].contiguous()
    return factors


def _layers(model: peft.PeftModel) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and "default" in module.lora_A:
            yield name, module


def _keep(layer: Any, A: Tensor, B: Tensor) -> None:
    layer.register_buffer("initial_A", A.detach().clone(), persistent=False)
    layer.register_buffer("initial_B", B.detach().clone(), persistent=False)
