"""LISA (Pan et al., arXiv 2403.17919): a few layers are trained at a time, drawn anew every so many steps.

Embeddings, last norm and head are trained all the time. A layer that is put to rest has no gradient, and what the
optimizer kept of it is dropped: so memory is that of the layers at work. Which they are follows from the seed and the
step alone, so a resumed run goes on with the same ones.
"""

from __future__ import annotations

import random
from typing import Any

from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swift import tuners
from swift.core.errors import SwiftError
from swift.core.log import log
from swift.params.groups import Lisa


def layers_in_turn(model: PreTrainedModel, lisa: Lisa) -> nn.ModuleList:
    """The layers that take turns. Raises SwiftError for a model that has fewer of them than are to be trained."""
    layers = tuners.decoder_layers(model)
    if lisa.lisa_activated_layers > len(layers):
        raise SwiftError(
            f"--lisa_activated_layers {lisa.lisa_activated_layers} is more than the {len(layers)} layers of the model",
            where="--lisa_activated_layers",
            next="--lisa_activated_layers 2, or leave it out to train them all",
        )
    return layers


class LayersTakeTurns(TrainerCallback):
    """Switches layers on and off. The optimizer has to have been made while all of them were trained."""

    def __init__(self, layers: nn.ModuleList, lisa: Lisa, seed: int):
        self._every, self._count, self._seed = lisa.lisa_step_interval, lisa.lisa_activated_layers, seed
        self._trained = [[p for p in layer.parameters() if p.requires_grad] for layer in layers]
        self._interval: int | None = None

    def active(self, step: int) -> list[int]:
        """The layers that are trained in optimizer step number `step` + 1."""
        draw = random.Random(f"{self._seed} {step // self._every}")
        return sorted(draw.sample(range(len(self._trained)), self._count))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The optimizer is there, with its state of an earlier run."""
        self._switch(state.global_step, kwargs["optimizer"])

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Before the first backward pass of a step."""
        self._switch(state.global_step, kwargs["optimizer"])

    def _switch(self, step: int, optimizer: Any) -> None:
        if step // self._every == self._interval:
            return
        self._interval = step // self._every
        active = self.active(step)
        log.info("LISA: layers %s from step %d on", ", ".join(map(str, active)), step + 1)
        for number, parameters in enumerate(self._trained):
            for parameter in parameters:
                parameter.requires_grad_(number in active)
                if number not in active:
                    parameter.grad = None
                    optimizer.state.pop(parameter, None)
