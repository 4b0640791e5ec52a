"""Adapters made with transformers 4 on multimodal models, whose parts lie elsewhere in the model now."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import peft
from peft.utils.other import get_pattern_key
from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from swift.tuners.adapter_files import Adapter
from swift.tuners.fused_experts import LORA, PREFIX, own_layers


def by_names_of(model: nn.Module, adapter: Adapter) -> Adapter:
    """`adapter`, unless layers of its LoRAs have other names in `model`, by which the weights of its base are renamed
    too: then one by these names. What is not found by them either stays, to be refused."""
    base = model.get_base_model() if isinstance(model, peft.PeftModel) else model
    if not isinstance(adapter.config, peft.LoraConfig) or not isinstance(base, PreTrainedModel):
        return adapter
    layers = {LORA.sub("", key.removeprefix(PREFIX)) for key in adapter.tensors if LORA.search(key)}
    own = own_layers(model)
    if layers <= own:
        return adapter
    renamings = [each for each in get_model_conversion_mapping(base) if isinstance(each, WeightRenaming)]
    found = {layer: layer if layer in own else _renamed(layer, renamings) for layer in layers}
    if not own.issuperset(found.values()):
        return adapter
    config: Any = peft.LoraConfig.from_peft_type(**adapter.config.to_dict())
    config.target_modules = set(found.values())
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    config.rank_pattern, config.alpha_pattern = (
        _of_layers(pattern, found) for pattern in (adapter.config.rank_pattern, adapter.config.alpha_pattern)
    )
    return replace(adapter, config=config, tensors={_key(key, found): t for key, t in adapter.tensors.items()})


def _renamed(layer: str, renamings: list[WeightRenaming]) -> str:
    name = f"{layer}.weight"
    for renaming in renamings:  # as vLLM's older transformers can too
        name, _ = renaming.rename_source_key(name)
    return name.removesuffix(".weight")


def _key(key: str, found: Mapping[str, str]) -> str:
    layer = LORA.sub("", key.removeprefix(PREFIX))
    return key.replace(layer, found[layer], 1) if LORA.search(key) else key


def _of_layers(pattern: Mapping[str, Any] | None, found: Mapping[str, str]) -> dict[str, Any]:
    """A pattern of the configuration, told for each layer that it names."""
    given = dict(pattern or {})
    named = {layer: get_pattern_key(list(given), layer) for layer in found}
    return {re.escape(found[layer]): given[key] for layer, key in named.items() if key in given}
