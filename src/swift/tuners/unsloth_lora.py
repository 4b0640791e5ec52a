"""LoRA in Unsloth's kernels: its model is PEFT's, so everything else about it is as of any LoRA."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from swift.plan.tuner import TunerPlan
from swift.tuners.target_modules import resolve_saved, resolve_targets

ARGUMENTS = ("r", "lora_alpha", "lora_dropout", "bias", "init_lora_weights", "use_rslora")
"""Settings of the plan that its function takes by the same name."""


def attach_with_unsloth(model: PreTrainedModel, plan: TunerPlan) -> nn.Module:
    """A LoRA by the plan on a model that Unsloth loaded."""
    return _fast().get_peft_model(
        model,
        target_modules=resolve_targets(model, plan),
        modules_to_save=resolve_saved(model, plan) or None,
        use_gradient_checkpointing=False,
        random_state=torch.initial_seed() % 2**32,
        **{name: plan.settings[name] for name in ARGUMENTS},
    )


def go_on_with_unsloth(model: nn.Module) -> nn.Module:
    """A PeftModel that was read from a checkpoint, with Unsloth's kernels in its layers."""
    return _fast().patch_peft_model(model, use_gradient_checkpointing=False)


def _fast() -> Any:
    from unsloth import FastLanguageModel  # pyright: ignore[reportMissingImports]

    return FastLanguageModel
