"""From a ModelPlan to files, a tokenizer and a model in memory."""

from swift.models.context_window import context_length
from swift.models.download import fetch
from swift.models.fingerprint import check_base, identity, same_base
from swift.models.load import load_config, load_model, load_tokenizer
from swift.models.quantize import parameter_count
from swift.models.vocabulary import embedded_tokens

__all__ = [
    "check_base",
    "context_length",
    "embedded_tokens",
    "fetch",
    "identity",
    "load_config",
    "load_model",
    "load_tokenizer",
    "parameter_count",
    "same_base",
]
