"""`--vit_use_gc false`: the vision tower keeps its activations where those of the other layers are computed again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer

from swift import tuners


class TowerActivations(TrainerCallback):
    """Keeps the activations of the modules at some paths."""

    def __init__(self, tower: Sequence[str]):
        self._tower = tower

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Recomputing is set up: take the tower out."""
        if model is not None:
            keep_activations(tuners.base_model(model), self._tower)


def keep_activations(model: PreTrainedModel, paths: Sequence[str]) -> None:
    """Let no layer below the modules at `paths` compute its activations again."""
    for path in paths:
        for module in model.get_submodule(path).modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.gradient_checkpointing = False
