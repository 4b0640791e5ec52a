"""Looks whether trained weights move at all: updates below the precision of a weight are lost without a word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swift.training.why_not_learning import Cause, Notebook

TENSORS, VALUES = 8, 4096
"""How many trained tensors are looked at, and how many values of each."""
LOOKED_THROUGH = 2**18
"""Gradients of a tensor among which those that are not 0 are sought: the places of all would fill more memory."""
STEPS = 3
"""Optimizer steps between the two looks, at no less than half the peak of the learning rate."""
FEW = 0.01
"""A smaller share of values that changed is told: those so near to 0 that any update shows."""


@dataclass(frozen=True)
class _Sample:
    """Values of a weight that get a gradient."""

    weight: Tensor
    places: Tensor
    values: Tensor

    def changed(self) -> int:
        """How many of them are others now."""
        return int((self.weight.detach().flatten()[self.places] != self.values).sum())


class WatchedWeights(TrainerCallback):
    """Compares values of weights with what they were a few steps before, once.

    For weights that lie whole in this process and that the optimizer itself steps: where it steps copies of more
    precision, they stand still while those move. Weights that start at 0 move with any update and are left out.
    """

    def __init__(self, notebook: Notebook):
        self._notebook = notebook
        self._judged: list[tuple[str, nn.Parameter]] = []
        self._samples: list[_Sample] = []
        self._steps = 0

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Choose the weights."""
        assert model is not None
        trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        self._judged = [(name, weight) for name, weight in trained if bool(weight.detach().any())]

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The gradients are still there: note values behind the second step, compare them a few steps later."""
        if not self._judged or kwargs["optimizer"].step_was_skipped:
            return
        self._steps += 1
        rate = kwargs["lr_scheduler"].get_last_lr()[0]
        if self._samples:
            if self._steps == STEPS:
                self._compare(state.global_step + 1, rate)
                self._judged, self._samples = [], []
        elif self._steps >= 2 and 0 < args.learning_rate <= 2 * rate:
            self._samples, self._steps = self._sampled(), 0

    def _sampled(self) -> list[_Sample]:
        samples: list[_Sample] = []
        chosen = [(name, weight) for name, weight in self._judged if weight.grad is not None]
        for _, weight in chosen[:: max(1, len(chosen) // TENSORS)]:
            assert weight.grad is not None
            apart = max(1, weight.numel() // LOOKED_THROUGH)
            (places,) = weight.grad.detach().flatten()[::apart].nonzero(as_tuple=True)
            if not len(places):  # of an adapter whose other half is still 0
                continue
            places = apart * places[:: max(1, len(places) // VALUES)]
            samples.append(_Sample(weight, places, weight.detach().flatten()[places].clone()))
        return samples

    def _compare(self, step: int, rate: float) -> None:
        share = sum(sample.changed() for sample in self._samples) / sum(len(one.places) for one in self._samples)
        if share < FEW:
            dtype = str(self._samples[0].weight.dtype).removeprefix("torch.")
            self._notebook.tell(
                Cause(
                    "updates that are lost in rounding",
                    f"{share:.1%} of the weights that were looked at have changed in {STEPS} steps: at a learning rate "
                    f"of {rate:.3g} an update is less than {dtype} can add to a weight",
                    "raise --learning_rate, or train weights of more precision: --dtype fp32, or an adapter",
                ),
                step,
            )
