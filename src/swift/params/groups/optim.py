"""The optimizer and the learning rate."""

from __future__ import annotations

from typing import Annotated, Any

from swift.params.flag import Basic, Json, Known, Range
from swift.params.frozen import Frozen


class Optim(Frozen):
    """The optimizer and the learning rate."""

    learning_rate: Annotated[float | None, Basic(), Range(0)] = None
    """Highest learning rate; None means 1e-4 for adapters and 1e-5 for full."""
    lr_scheduler_type: Annotated[str, Known(("linear", "cosine", "constant"))] = "cosine"
    """Learning rate schedule."""
    lr_scheduler_kwargs: Annotated[str | dict[str, Any] | None, Json()] = None
    """Further settings of the schedule, as JSON text."""
    warmup_ratio: Annotated[float, Range(0, 1)] = 0.05
    """Share of the steps used for warm-up."""
    warmup_steps: Annotated[int, Range(0)] = 0
    """Number of warm-up steps; above 0 it overrides warmup_ratio."""
    min_lr: Annotated[float | None, Range(0)] = None
    """Lowest learning rate of the megatron backend."""
    optim: str = "adamw_torch"
    """Name of the optimizer."""
    weight_decay: Annotated[float, Range(0)] = 0.1
    """Weight decay."""
    max_grad_norm: Annotated[float, Range(0)] = 1.0
    """Norm to which gradients are clipped."""
    adam_beta1: Annotated[float, Range(0, 1, below=True)] = 0.9
    """Adam beta1."""
    adam_beta2: Annotated[float, Range(0, 1, below=True)] = 0.95
    """Adam beta2."""
    adam_epsilon: Annotated[float, Range(0)] = 1e-08
    """Adam epsilon."""
