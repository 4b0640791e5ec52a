"""What a model can do by its configuration alone, before its weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swift.models.known_decoders import known_decoder
from swift.plan.model import ModelPlan


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far a run can go with a model."""

    vocab_size: int
    """Rows of the embeddings."""
    context_length: int | None
    """Tokens a sequence may have; None where there is no limit."""
    without_checkpointing: str | None = None
    """The model's class, where it cannot compute activations again in the backward pass."""


def limits_of(plan: ModelPlan, folder: Path) -> Limits:
    """Those of the plan's model in `folder`. Raises SwiftError for a configuration that cannot be used."""
    decoder = known_decoder(plan, folder)
    if decoder is not None:
        return Limits(vocab_size=decoder.vocab_size, context_length=decoder.context_length)
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    from swift.models.context_window import context_length
    from swift.models.load import load_config

    config = load_config(plan, folder)
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return Limits(
        vocab_size=config.get_text_config(decoder=True).vocab_size,
        context_length=context_length(config),
        without_checkpointing=None if kind is None or kind.supports_gradient_checkpointing else kind.__name__,
    )
