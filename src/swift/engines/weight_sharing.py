"""A second model over the weights of the first, for an adapter to change without the first one knowing."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from swift.engines.packed_linear import PackedLinear


def share_weights(model: PreTrainedModel) -> PreTrainedModel:
    """A model of the same modules, parameters of its own over the same memory, and the same configuration objects.

    Modules may be wrapped and parameters be given other tensors in it; a tensor that is written in place has to be
    copied first. It takes a few milliseconds, and memory for the modules alone.
    """
    shared: dict[int, Any] = {}
    for module in model.modules():
        # Leaves without weights may have a state that has to be the same for all, as rotary embeddings that stretch.
        bare = next(module.parameters(), None) is None and next(module.children(), None) is None
        if bare or isinstance(module, PackedLinear):
            shared[id(module)] = module
        for value in vars(module).values():
            if isinstance(value, PreTrainedConfig):  # how attention is computed is switched for all at once
                shared[id(value)] = value
    for parameter in model.parameters():
        # Quantized parameters carry what is needed to read them, and nobody writes them.
        plain = type(parameter) is nn.Parameter
        shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False) if plain else parameter
    for buffer in model.buffers():
        shared[id(buffer)] = buffer
    with torch.no_grad():
        return copy.deepcopy(model, shared)
