"""What a run minimises: an objective takes the model and a batch and returns sums, the Trainer divides them.

Which command uses which is in `swift.plan.methods`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel

from swift.models.families import MediaProcessor
from swift.plan.sft import SftPlan
from swift.prompts.encode import Encoder

Batch = dict[str, Any]
Metrics = Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Sums:
    """What one micro-batch adds: the weighted sum of its losses (fp32, differentiable) and its metrics.

    A loss of several terms, each a mean over something else, is a vector of their sums.

    A metric is a pair (sum, count) of scalars, so that micro-batches and processes add up to a true mean. It is logged
    under its name while training and as `eval_NAME` over the validation rows.
    """

    loss: Tensor
    metrics: Metrics = field(default_factory=dict)


class Objective(Protocol):
    """A loss over batches. It keeps no state that training depends on, beside modules it has added to the model."""

    def denominator(self, batch: Batch) -> Tensor:
        """The share of `batch`, still on the CPU, in what the summed loss is divided by; shaped as `Sums.loss`."""
        ...

    added: ClassVar[str | None] = None
    """The name of a module that it has added to the model and that `save` writes into a file of its own."""

    may_start_flat: ClassVar[bool] = False
    """Whether the gradient of the first step may be 0: where it depends on chance."""

    def derived(self, metrics: dict[str, float]) -> dict[str, float]:
        """The metrics of a log line with those that follow from the others."""
        return metrics

    def begin_step(self, model: nn.Module, batches: Iterable[Batch]) -> None:
        """Look at all micro-batches of an optimizer step before the first of them is trained on.

        Those with 0 `items` count for nothing: other processes, which have rows, wait for their forward pass.
        """
        return

    def sums(self, model: nn.Module, batch: Batch) -> Sums:
        """Run `model` (possibly wrapped for DDP) on `batch` and sum up. Also used, without gradient, to evaluate."""
        ...

    def go_on_from(self, checkpoint: Path | None) -> None:
        """Go back to what `save` wrote into a checkpoint of the run, beside the model; None: to its start."""
        return

    def save(self, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write into a checkpoint what belongs to it beside the model's weights, such as a value head.

        `weights` are those of the model, by name, where modules that were added to it have shares of theirs.
        """
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
    pad_id: int
    """What fills up a padded row."""
    rows: Any
    """The training examples."""
    images: MediaProcessor | None
    """What makes pixels of images; None for a model of text."""
    encoder: Encoder
    """How rows were rendered; it has the tokenizer."""
    steps: int
    """Optimizer steps of the run."""
    folder: Path
    """The run's own folder."""
    flat: bool
    """Whether batches come without padding (see `swift.training.batches`)."""
    keep_inside: Callable[[PreTrainedModel], bool]
    """Lets a second model attend inside the sequences of flat batches; False, where it cannot."""
    share_out: Callable[[nn.Module], None]
    """Lays a second model, which is only asked, over the processes as the trained one is."""
    scored: bool = False
    """Whether rows bring the reference's log-probabilities of their answers (see `swift.training.scored_rows`)."""

    @property
    def continued(self) -> Path | None:
        """`resume`, unless the run is a new one that only takes its weights."""
        return None if self.plan.train.group.resume_only_model else self.resume
