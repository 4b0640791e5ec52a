"""Folds an adapter into the weights of its base."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from swift.core.errors import SwiftError
from swift.tuners.added_modules import added_to


def merge(model: nn.Module) -> PreTrainedModel:
    """The base model with the adapter folded into its weights, in the dtype the model is in.

    Embeddings tied to the head are untied when the adapter changes one of them alone, and stay tied when it keeps
    them equal. Raises SwiftError when a merged weight is not finite or the method cannot be merged.
    """
    from peft import PeftModel

    if isinstance(model, PreTrainedModel):
        if added_to(model):
            raise SwiftError(
                "this adapter cannot be merged",
                why="it computes something that no weight of the base computes",
                next="use it unmerged: swift infer --ckpt_dir its folder",
            )
        return model  # with the layers of LLaMA-Pro it is an ordinary model
    if not isinstance(model, PeftModel):
        raise TypeError(f"{type(model).__name__} carries no adapter")
    _untie(model)
    try:
        merged: Any = model.merge_and_unload(safe_merge=True)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise SwiftError(
            "this adapter cannot be merged",
            why=_why(model, error),
            next="use it unmerged: swift infer --ckpt_dir its folder",
        ) from error
    head = merged.get_output_embeddings()
    if head is not None and merged.get_input_embeddings().weight is head.weight:
        merged.config.tie_word_embeddings = True
    return merged


def _why(model: Any, error: Exception) -> str:
    """PEFT's reason; some methods only say that they have not got it."""
    kind = str(model.peft_config["default"].peft_type.value)
    if isinstance(error, NotImplementedError):
        return f"PEFT has no merge for {kind}"
    return str(error)


def _untie(model: Any) -> None:
    """Give the head a weight of its own when the adapter sits on tied embeddings or on the head.

    The configuration then says that they are not tied, and also where a class of models never ties what it promises to.
    """
    base = model.get_base_model()
    inputs, head = base.get_input_embeddings(), base.get_output_embeddings()
    if head is None:
        return
    source, target = _weight_owner(inputs), _weight_owner(head)
    if source.weight is target.weight:
        if isinstance(inputs, nn.Embedding) and isinstance(head, nn.Linear):
            return
        target.weight = nn.Parameter(target.weight.detach().clone(), requires_grad=False)
    base.config.tie_word_embeddings = False


def _weight_owner(module: nn.Module) -> Any:
    """The plain layer inside PEFT's wrappers."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    if isinstance(module, BaseTunerLayer):
        return module.get_base_layer()
    if isinstance(module, ModulesToSaveWrapper):
        return module.original_module
    return module
