"""Looks whether trained weights move: by more than rounding takes away, by enough to learn, and by their gradients."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
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
LEAST, LEAST_OF_ADAPTERS = 3e-5, 1e-4
"""By a smaller share of their size weights would move in the whole run, if all of its steps were as long."""
USUAL, DECAYED, PULLED = 0.5, 0.1, 0.1
"""Weight decay is told that is larger than any usual one, takes this share off the weights in the whole run, and makes
up this share of each step: a usual one is a hundredth of it, and balanced by the gradients."""


@dataclass(frozen=True)
class _Sample:
    """Values of a weight that get a gradient."""

    weight: Tensor
    places: Tensor
    values: Tensor

    def moved(self) -> Tensor:
        """By how much each of them is another now."""
        return self.weight.detach().flatten()[self.places].double() - self.values.double()

    def size(self) -> float:
        """Their length as a vector."""
        return float(self.values.double().norm())


class WatchedWeights(TrainerCallback):
    """Compares values of weights with what they were a few steps before, once, and tells one cause at most.

    For weights that lie whole in this process and that the optimizer itself steps: where it steps copies of more
    precision, they stand still while those move. Weights that start at 0 move with any update and are left out.
    """

    def __init__(self, notebook: Notebook):
        self._notebook = notebook
        self._judged: list[tuple[str, nn.Parameter]] = []
        self._least = LEAST
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
        from_nothing = len([weight for _, weight in trained if weight.dim() > 1 and not weight.detach().any()])
        self._least = LEAST_OF_ADAPTERS if from_nothing else LEAST

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
                self._compare(args, state, rate, _decays(kwargs["optimizer"].param_groups))
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

    def _compare(self, args: TrainingArguments, state: TrainerState, rate: float, decays: Mapping[int, float]) -> None:
        """Tell a cause. The tensor that moves most, by its own size, speaks for all."""
        moved = [sample.moved() for sample in self._samples]
        share = sum(int((part != 0).sum()) for part in moved) / sum(map(len, moved))
        sizes = [max(sample.size(), sys.float_info.min) for sample in self._samples]
        steps = [float(part.norm()) / size / STEPS for part, size in zip(moved, sizes, strict=True)]
        decay, last = max(decays.get(id(sample.weight), 0.0) for sample in self._samples), state.max_steps
        dtype = str(self._samples[0].weight.dtype).removeprefix("torch.")
        if share < FEW and dtype != "float32":
            cause = _lost(share, rate, dtype)
        elif rate * decay * last > DECAYED and decay > USUAL and rate * decay > PULLED * max(steps):
            cause = _decayed(1 - math.exp(-rate * decay * last), last, rate * decay / max(steps))
        elif max(steps) * last < self._least:
            cause = _too_small(max(steps), args.learning_rate, last)
        else:
            return
        self._notebook.tell(cause, state.global_step + 1)


def _decays(groups: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """The decay of each weight, by the number of the object."""
    return {id(weight): group.get("weight_decay", 0.0) for group in groups for weight in group["params"]}


def _lost(share: float, rate: float, dtype: str) -> Cause:
    return Cause(
        "updates that are lost in rounding",
        f"{share:.1%} of the weights that were looked at have changed in {STEPS} steps: at a learning rate of "
        f"{rate:.3g} an update is less than {dtype} can add to a weight",
        "raise --learning_rate, or train weights of more precision: --dtype fp32, or an adapter",
    )


def _decayed(share: float, steps: int, pull: float) -> Cause:
    return Cause(
        "a weight decay that shrinks the weights",
        f"it takes {share:.0%} off them in the {steps} steps of this run, and is {pull:.0%} of what a step moves them",
        "lower --weight_decay; usual are 0 to 0.1",
    )


def _too_small(moved: float, rate: float, steps: int) -> Cause:
    return Cause(
        "steps too small to learn",
        f"at --learning_rate {rate:.3g} a step moves the weights by {moved:.1g} of their size, all {steps} steps "
        f"by {moved * steps:.1g} at most",
        "raise --learning_rate; usual are 1e-4 for adapters and 1e-5 for all weights",
    )
