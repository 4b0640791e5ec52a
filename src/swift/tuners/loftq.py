"""LoftQ (arXiv 2310.08659, one alternating step): LoRA that starts by making up for what 4 bits lose of the base.

The base weight W becomes Q, its nearest value in 4-bit NormalFloat (arXiv 2305.14314, appendix E) by blocks of 64, and
the factors start from the singular vectors of W - Q. Q follows from W alone, so a loaded adapter rounds the base again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

LEVELS = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""The values of a 4-bit NormalFloat, in shares of the largest number of a block."""
BLOCK = 64
CONFIG = {"loftq_bits": 4, "loftq_iter": 1}
"""What an adapter's configuration says of it, in PEFT's words."""


def mark(config: peft.PeftConfig) -> None:
    """Say in an adapter's configuration that it starts this way."""
    assert isinstance(config, peft.LoraConfig)
    config.init_lora_weights = "loftq"
    config.loftq_config = dict(CONFIG)


def round_base(model: peft.PeftModel, name: str = "default") -> None:
    """Give the layers below the adapter the weights it was trained on. One that is quantized already is left alone."""
    for layer in _layers(model, name):
        weight = layer.get_base_layer().weight
        weight.data = rounded(weight.data)


def start(model: peft.PeftModel, name: str = "default") -> None:
    """Round the layers below a new adapter and start its factors A, B so that scaling * B A is nearest to W - Q."""
    for layer in _layers(model, name):
        base: Any = layer.get_base_layer()
        lost = base.weight.data.float() - rounded(base.weight.data).float()
        A, B = layer.lora_A[name].weight, layer.lora_B[name].weight
        left, sizes, right = torch.linalg.svd(lost.T if isinstance(base, Conv1D) else lost, full_matrices=False)
        rank = min(A.shape[0], sizes.numel())
        root = (sizes[:rank] / layer.scaling[name]).sqrt()
        with torch.no_grad():
            A.zero_()
            B.zero_()
            A[:rank] = root[:, None] * right[:rank]
            B[:, :rank] = left[:, :rank] * root
    round_base(model, name)


@torch.no_grad()
def rounded(weight: Tensor) -> Tensor:
    """The nearest tensor of 4-bit NormalFloats in blocks of 64 along its numbers, in the dtype of `weight`."""
    flat = weight.float().reshape(-1)
    padded = nn.functional.pad(flat, (0, -flat.numel() % BLOCK)).view(-1, BLOCK)
    largest = padded.abs().amax(1, keepdim=True)
    levels = torch.tensor(LEVELS, device=weight.device)
    between = (levels[1:] + levels[:-1]) / 2
    nearest = levels[torch.bucketize(padded / largest.clamp(min=torch.finfo(torch.float32).tiny), between)]
    return (nearest * largest).view(-1)[: flat.numel()].view_as(weight).to(weight.dtype)


def _layers(model: peft.PeftModel, name: str) -> Iterator[Any]:
    for module in model.modules():
        if isinstance(module, LoraLayer) and name in module.lora_A:
            base = module.get_base_layer()
            if type(base) is nn.Linear or isinstance(base, Conv1D):
                yield module
