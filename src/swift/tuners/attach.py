"""The door to every tuning method: adapters go through PEFT, `full` freezes what the plan says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from swift.core.errors import SwiftError
from swift.plan.quantization import stored_quant
from swift.plan.tuner import TunerPlan
from swift.tuners.freeze import freeze
from swift.tuners.target_modules import linear_layers


def attach(model: PreTrainedModel, plan: TunerPlan, *, total_steps: int | None = None) -> nn.Module:
    """`model` with exactly the planned parameters trainable: itself for `full`, a PeftModel for adapters.

    AdaLoRA spreads its ranks over `total_steps` optimizer steps and needs that number. Raises SwiftError when a name
    of the plan matches nothing in the model, or nothing would be trained.
    """
    if plan.sft_type == "full":
        _refuse_quantized(model)
        freeze(model, plan)
        tuned: nn.Module = model
    else:
        from swift.tuners.peft_tuners import attach_adapter

        _require_gradient(model)
        tuned = attach_adapter(model, plan, total_steps)
    if not any(parameter.requires_grad for parameter in tuned.parameters()):
        raise SwiftError(
            "nothing would be trained",
            where="--freeze_parameters, --freeze_parameters_ratio",
            why="every parameter is frozen",
            next="freeze less, or name what to train with --additional_trainable_parameters",
        )
    return tuned


def _refuse_quantized(model: PreTrainedModel) -> None:
    """The plan does it for what it knows; of a hub model outside the catalog the downloaded folder tells."""
    stored = stored_quant(model.config.to_dict())
    if stored is not None:
        raise SwiftError(
            f"--sft_type full cannot train a quantized model ({stored})",
            where="--sft_type",
            why="quantized weights have no gradient",
            next="use --sft_type lora, or the model in full precision",
        )


def _require_gradient(model: PreTrainedModel) -> None:
    """Try one layer of each quantized kind: some kernels only answer, and what is below them would train on zeros."""
    kinds: dict[type[nn.Module], Any] = {}
    for path in linear_layers(model):
        layer = model.get_submodule(path)
        if not isinstance(layer, Conv1D) and type(layer) is not nn.Linear:
            kinds.setdefault(type(layer), layer)
    for kind, layer in kinds.items():
        was_training = layer.training
        layer.train()
        try:
            input = torch.zeros(1, layer.in_features, dtype=model.dtype, device=model.device, requires_grad=True)
            passes = layer(input).requires_grad
        finally:
            layer.train(was_training)
        if not passes:
            raise SwiftError(
                "these quantized weights can answer on this machine, but not be trained on",
                why=f"no gradient passes through the kernel of {kind.__name__}",
                next="give the model in full precision and --quantization_bit 4, or train on a GPU",
            )


def base_model(model: nn.Module) -> PreTrainedModel:
    """The model inside its tuner; `model` itself where nothing was put around it."""
    from peft import PeftModel

    base = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(base, PreTrainedModel)
    return base


def on_step(model: nn.Module, step: int) -> None:
    """To be called after optimizer step number `step` (from 1) and before the gradients are cleared."""
    from swift.tuners.peft_tuners import adalora

    adapter = adalora(model)
    if adapter is not None:
        adapter.update_and_allocate(step)


def regularizer(model: nn.Module) -> Tensor | None:
    """A term that the method adds to the loss (AdaLoRA's orthogonality), or None."""
    from swift.tuners.peft_tuners import adalora, orthogonality

    adapter = adalora(model)
    return None if adapter is None else orthogonality(adapter)
