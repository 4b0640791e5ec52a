"""The door to every tuning method: adapters go through PEFT, `full` freezes what the plan says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from swift.core.errors import SwiftError
from swift.plan.quantization import stored_quant
from swift.plan.tuner import TunerPlan
from swift.tuners import added_modules, llamapro
from swift.tuners.freeze import freeze
from swift.tuners.target_modules import linear_layers
from swift.tuners.unsloth_lora import attach_with_unsloth

ADDED = ("adapter", "reft")
"""Methods of our own that add modules (`swift.tuners.added_modules`)."""


def attach(
    model: PreTrainedModel, plan: TunerPlan, *, total_steps: int | None = None, resumed: bool = False
) -> nn.Module:
    """`model` with exactly the planned parameters trainable: a PeftModel for PEFT's methods, itself for any other.

    AdaLoRA spreads its ranks over `total_steps` optimizer steps and needs that number. `resumed` says that `model` is
    a whole checkpoint of this plan, which has the layers of LLaMA-Pro already. Raises SwiftError when a name of the
    plan matches nothing in the model, or nothing would be trained.
    """
    if plan.sft_type not in ("full", "llamapro"):
        _require_gradient(model)
    else:
        _refuse_quantized(model, plan.sft_type)
    tuned: nn.Module = model
    if plan.sft_type == "full":
        freeze(model, plan)
    elif plan.sft_type == "llamapro":
        _attach_layers(model, plan, resumed=resumed)
    elif plan.tuner_backend == "unsloth":
        tuned = attach_with_unsloth(model, plan)
    elif plan.sft_type in ADDED:
        added_modules.attach(model, plan.sft_type, plan.settings)
    else:
        from swift.tuners.peft_tuners import attach_adapter

        tuned = attach_adapter(model, plan, total_steps)
    if not any(parameter.requires_grad for parameter in tuned.parameters()):
        raise SwiftError(
            "nothing would be trained",
            where="--freeze_parameters, --freeze_parameters_ratio",
            why="every parameter is frozen",
            next="freeze less, or name what to train with --additional_trainable_parameters",
        )
    return tuned


def _attach_layers(model: PreTrainedModel, plan: TunerPlan, *, resumed: bool) -> None:
    new, groups = plan.settings["num_new_blocks"], plan.settings["num_groups"]
    layers = len(llamapro.decoder_layers(model))
    sources = llamapro.placed(layers - new if resumed else layers, new, groups)
    if not resumed:
        llamapro.deepen(model, sources)
    llamapro.train_only(model, list(sources))


def _refuse_quantized(model: PreTrainedModel, sft_type: str) -> None:
    """The plan does it for what it knows; of a hub model outside the catalog the downloaded folder tells."""
    stored = stored_quant(model.config.to_dict())
    if stored is not None:
        raise SwiftError(
            f"--sft_type {sft_type} cannot train a quantized model ({stored})",
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
    if isinstance(model, PreTrainedModel):
        return model
    from peft import PeftModel  # takes seconds to import, and a model that only answers mostly has no adapter

    assert isinstance(model, PeftModel)
    base: Any = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    return base


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[None]:
    """While it lasts, an adapter that changes no weights of the base is switched off."""
    from peft import PeftModel

    with model.disable_adapter() if isinstance(model, PeftModel) else added_modules.switched_off(model):
        yield


def on_step(model: nn.Module, step: int) -> None:
    """To be called after optimizer step number `step` (from 1) and before the gradients are cleared."""
    if isinstance(model, PreTrainedModel):
        return
    from swift.tuners import adalora

    tuner = adalora.tuner_of(model)
    if tuner is not None:
        tuner.update_and_allocate(step)


def regularizer(model: nn.Module) -> Tensor | None:
    """A term that the method adds to the loss of every optimizer step (AdaLoRA's orthogonality), or None."""
    if isinstance(model, PreTrainedModel):
        return None
    from swift.tuners import adalora

    tuner = adalora.tuner_of(model)
    return None if tuner is None else adalora.penalty(tuner)
