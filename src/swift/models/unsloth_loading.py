"""Loading through Unsloth, which puts its own code into the model's classes. It can only be imported with a GPU."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel

from swift.core.errors import SwiftError
from swift.models.quantize import TORCH_DTYPES
from swift.plan.model import ModelPlan


def load_through_unsloth(
    plan: ModelPlan, folder: Path, *, max_length: int | None, whole: bool = False
) -> PreTrainedModel:
    """The model of `folder` for rows of up to `max_length` tokens; `whole` says that all its weights are trained.

    Gradient checkpointing is left to the Trainer, which knows whether there is room to do without.
    """
    from unsloth import FastLanguageModel  # pyright: ignore[reportMissingImports]

    bits = plan.quant.bits if plan.quant else None
    try:
        model, _ = FastLanguageModel.from_pretrained(
            model_name=str(folder),
            max_seq_length=max_length,
            dtype=TORCH_DTYPES[plan.dtype],
            load_in_4bit=bits == 4,
            load_in_8bit=bits == 8,
            full_finetuning=whole,
            use_gradient_checkpointing=False,
            use_exact_model_name=True,  # not one of its own repositories in the place of the folder
        )
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise SwiftError(
            f"Unsloth cannot load {folder}",
            where="--tuner_backend unsloth",
            why=str(error).partition("\n")[0],
            next="use --tuner_backend peft",
        ) from error
    model.config._name_or_path = model.name_or_path = plan.source
    return model
