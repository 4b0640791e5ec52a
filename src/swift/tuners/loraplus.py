"""Optimizer groups that a tuning method asks for."""

from __future__ import annotations

from typing import Any

from torch import nn

EMBEDDING_LR = 1e-6
"""Learning rate of LoRA factors on embeddings under LoRA+ (arXiv 2402.12354, reference implementation)."""


def loraplus_groups(model: nn.Module, lr: float, ratio: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of LoRA+: B learns `ratio` times as fast as A. Vectors (biases, norms) get no weight decay.

    Every trainable parameter is in exactly one group; empty groups are left out.
    """
    groups: dict[str, dict[str, Any]] = {
        "A": {"params": [], "lr": lr, "weight_decay": weight_decay},
        "B": {"params": [], "lr": lr * ratio, "weight_decay": weight_decay},
        "embedding": {"params": [], "lr": EMBEDDING_LR, "weight_decay": weight_decay},
        "vectors": {"params": [], "lr": lr, "weight_decay": 0.0},
    }
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if "lora_embedding" in name:
            kind = "embedding"
        elif parameter.ndim == 1:
            kind = "vectors"
        else:
            kind = "B" if "lora_B" in name else "A"
        groups[kind]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]
