"""Optimizer groups that a tuning method asks for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

EMBEDDING_LR = 1e-6
"""Learning rate of LoRA factors on embeddings under LoRA+ (arXiv 2402.12354, reference implementation)."""


def loraplus_groups(
    model: nn.Module, lr: float, ratio: float, weight_decay: float, decay: Collection[str]
) -> list[dict[str, Any]]:
    """Parameter groups of LoRA+: B, and every vector, learns `ratio` times as fast as A, as in its reference.

    `decay` has the names of the parameters with weight decay, which counts for B and vectors. Every trainable parameter
    is in exactly one group; empty groups are left out.
    """
    groups: dict[str, dict[str, Any]] = {
        "A": {"params": [], "lr": lr, "weight_decay": weight_decay},
        "B": {"params": [], "lr": lr * ratio, "weight_decay": weight_decay},
        "B without decay": {"params": [], "lr": lr * ratio, "weight_decay": 0.0},
        "embedding": {"params": [], "lr": EMBEDDING_LR, "weight_decay": weight_decay},
    }
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if "lora_embedding" in name:
            kind = "embedding"
        elif "lora_B" in name or parameter.ndim == 1:
            kind = "B" if name in decay else "B without decay"
        else:
            kind = "A"
        groups[kind]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]
