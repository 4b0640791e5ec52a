"""What a run minimises: an objective takes the model and a batch and returns sums, the Trainer divides them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

Batch = dict[str, Any]
Metrics = Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Sums:
    """What one micro-batch adds: the weighted sum of its losses (fp32 scalar, differentiable) and its metrics.

    A metric is a pair (sum, count) of scalars, so that micro-batches and processes add up to a true mean.
    """

    loss: Tensor
    metrics: Metrics = field(default_factory=dict)


class Objective(Protocol):
    """A loss over batches. It keeps no state that training depends on."""

    def denominator(self, batch: Batch) -> Tensor:
        """The share (scalar) of `batch`, still on the CPU, in the number the summed loss is divided by."""
        ...

    def sums(self, model: nn.Module, batch: Batch) -> Sums:
        """Run `model` (possibly wrapped for DDP) on `batch` and sum up. Also used, without gradient, to evaluate."""
        ...
