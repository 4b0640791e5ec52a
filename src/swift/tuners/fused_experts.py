"""Adapters made with transformers 4 on mixtures of experts: their experts were layers, and are one parameter now."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import peft
from peft.utils.transformers_weight_conversion import convert_peft_adapter_state_dict_for_transformers
from torch import Tensor, nn

from swift.core.errors import SwiftError
from swift.tuners.adapter_files import Adapter
from swift.tuners.target_modules import linear_kinds

PREFIX = "base_model.model."
LORA = re.compile(r"(?:\.base_layer)?\.lora_[AB]\.weight$")
FUSED_PAIR = "gate_up_proj"
"""The parameter that holds two layers of transformers 4; their factors stand in it side by side."""


def in_terms_of(model: nn.Module, adapter: Adapter) -> Adapter:
    """`adapter`, unless it holds LoRAs on layers that `model` keeps as parameters: then one that stands on these.

    PEFT turns such adapters too, but not where dense layers or shared experts of the same names stand beside them.
    Raises SwiftError for what cannot be turned. `adapter.config` stays as it is.
    """
    if not isinstance(adapter.config, peft.LoraConfig):
        return adapter
    layers = {key: LORA.sub("", key.removeprefix(PREFIX)) for key in adapter.tensors if LORA.search(key)}
    own = own_layers(model)
    old = {key for key, layer in layers.items() if layer not in own and ".experts." in layer}
    if not old:
        return adapter
    # A router was a layer as well.
    old |= {key for key, layer in layers.items() if layer not in own}
    config: Any = peft.LoraConfig.from_peft_type(**adapter.config.to_dict())
    turned = _turned(model, adapter, {key: adapter.tensors[key] for key in old})
    config.target_modules = {layer for layer in layers.values() if layer in own}
    config.target_parameters = sorted({name for key in turned for name in _parameters(model, key, adapter)})
    config.layers_to_transform = config.layers_pattern = None
    pair = rf".*\.{FUSED_PAIR}"
    config.rank_pattern = {**config.rank_pattern, pair: 2 * config.r}
    config.alpha_pattern = {
        **config.alpha_pattern,
        pair: config.lora_alpha * (math.sqrt(2) if config.use_rslora else 2),  # the scaling stays
    }
    rest = {key: tensor for key, tensor in adapter.tensors.items() if key not in old}
    return replace(adapter, config=config, tensors={**rest, **turned})


def _turned(model: nn.Module, adapter: Adapter, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    try:
        return convert_peft_adapter_state_dict_for_transformers(model, adapter.config, dict(tensors))
    except (LookupError, RuntimeError, ValueError) as error:
        raise _unturned(adapter, str(error).partition("\n")[0] or type(error).__name__) from error


def _parameters(model: nn.Module, key: str, adapter: Adapter) -> list[str]:
    """What PEFT has to wrap for the turned tensor `key`: ends of parameters' paths."""
    path = LORA.sub("", key.removeprefix(PREFIX))
    try:
        names = [name for name, _ in model.get_submodule(path).named_parameters(recurse=False)]
    except AttributeError:
        raise _unturned(adapter, f"nothing in the model is called {path}") from None
    return [f"{path}.{name}" for name in names if name == "weight" or name.endswith("_proj")]


def _unturned(adapter: Adapter, why: str) -> SwiftError:
    return SwiftError(
        f"the adapter in {adapter.folder} was made with transformers 4 and cannot be turned into what this model has",
        why=why,
        next="merge it with the transformers it was made with, and use the merged model",
    )


def own_layers(model: Any) -> set[str]:
    base = model.get_base_model() if isinstance(model, peft.PeftModel) else model
    kinds = (*linear_kinds(), nn.Embedding, nn.Conv1d, nn.Conv2d)
    # Under another adapter a layer is the wrapper's base_layer.
    return {name.removesuffix(".base_layer") for name, module in base.named_modules() if isinstance(module, kinds)}
