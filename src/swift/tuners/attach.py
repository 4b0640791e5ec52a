"""The door to every tuning method: adapters go through PEFT, `full` freezes what the plan says."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedModel

from swift.core.errors import SwiftError
from swift.plan.tuner import TunerPlan
from swift.tuners.freeze import freeze


def attach(model: PreTrainedModel, plan: TunerPlan, *, total_steps: int | None = None) -> nn.Module:
    """`model` with exactly the planned parameters trainable: itself for `full`, a PeftModel for adapters.

    AdaLoRA spreads its ranks over `total_steps` optimizer steps and needs that number. Raises SwiftError when a name
    of the plan matches nothing in the model, or nothing would be trained.
    """
    if plan.sft_type == "full":
        freeze(model, plan)
        tuned: nn.Module = model
    else:
        from swift.tuners.adapters import attach_adapter

        tuned = attach_adapter(model, plan, total_steps)
    if not any(parameter.requires_grad for parameter in tuned.parameters()):
        raise SwiftError(
            "nothing would be trained",
            where="--freeze_parameters, --freeze_parameters_ratio",
            why="every parameter is frozen",
            next="freeze less, or name what to train with --additional_trainable_parameters",
        )
    return tuned


def on_step(model: nn.Module, step: int) -> None:
    """To be called after optimizer step number `step` (from 1) and before the gradients are cleared."""
    from swift.tuners.adapters import adalora

    adapter = adalora(model)
    if adapter is not None:
        adapter.update_and_allocate(step)


def regularizer(model: nn.Module) -> Tensor | None:
    """A term that the method adds to the loss (AdaLoRA's orthogonality), or None."""
    from swift.tuners.adapters import adalora, orthogonality

    adapter = adalora(model)
    return None if adapter is None else orthogonality(adapter)
