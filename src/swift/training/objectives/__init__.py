"""What a run minimises: an objective takes the model and a batch and returns sums, the Trainer divides them.

Which command uses which is in `swift.plan.methods`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel

from swift.plan.sft import SftPlan

Batch = dict[str, Any]
Metrics = Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Sums:
    """What one micro-batch adds: the weighted sum of its losses (fp32 scalar, differentiable) and its metrics.

    A metric is a pair (sum, count) of scalars, so that micro-batches and processes add up to a true mean. It is logged
    under its name while training and as `eval_NAME` over the validation rows.
    """

    loss: Tensor
    metrics: Metrics = field(default_factory=dict)


class Objective(Protocol):
    """A loss over batches. It keeps no state that training depends on, beside modules it has added to the model."""

    def denominator(self, batch: Batch) -> Tensor:
        """The share (scalar) of `batch`, still on the CPU, in the number the summed loss is divided by."""
        ...

    def sums(self, model: nn.Module, batch: Batch) -> Sums:
        """Run `model` (possibly wrapped for DDP) on `batch` and sum up. Also used, without gradient, to evaluate."""
        ...

    def save(self, folder: Path) -> None:
        """Write into a checkpoint what belongs to it beside the model's weights, such as a value head."""
        return


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an objective is built from, once a run, after the model and its tuner and before the optimizer."""

    plan: SftPlan
    model: nn.Module
    """The model as it is trained, with its tuner. The trainable parameters of a module that is added to it here (a
    value head) are trained too."""
    base: PreTrainedModel
    """The model inside the tuner; `model` itself for full tuning."""
    source: Path
    """Folder with the weights that `base` was loaded from, for whoever needs them a second time (a reference)."""
    resume: Path | None
    """The checkpoint that the run goes on from."""
    flat: bool
    """Whether batches come without padding (see `swift.training.batches`)."""
