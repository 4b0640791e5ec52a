"""From a ModelPlan to files, a tokenizer and a model in memory."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swift.models.context_window import context_length
    from swift.models.download import fetch
    from swift.models.fingerprint import check_base, identity, same_base
    from swift.models.load import load_config, load_model
    from swift.models.quantize import parameter_count
    from swift.models.tokenizer import load_tokenizer
    from swift.models.unsloth_loading import load_through_unsloth
    from swift.models.vocabulary import embedded_tokens

__all__ = [
    "check_base",
    "context_length",
    "embedded_tokens",
    "fetch",
    "identity",
    "load_config",
    "load_model",
    "load_through_unsloth",
    "load_tokenizer",
    "parameter_count",
    "same_base",
]

_PLACES = {
    "check_base": "fingerprint",
    "context_length": "context_window",
    "embedded_tokens": "vocabulary",
    "fetch": "download",
    "identity": "fingerprint",
    "load_config": "load",
    "load_model": "load",
    "load_through_unsloth": "unsloth_loading",
    "load_tokenizer": "tokenizer",
    "parameter_count": "quantize",
    "same_base": "fingerprint",
}


def __getattr__(name: str) -> Any:
    """Import a name on its first use: files and tokenizers are asked for where no weights are, and torch is not."""
    if name not in _PLACES:
        raise AttributeError(f"module 'swift.models' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"swift.models.{_PLACES[name]}"), name)
    globals()[name] = value
    return value
