"""One command line for the life of a language model after pre-training."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swift.catalog.custom import Template, register_dataset, register_model, register_template
    from swift.prompts.api import get_template

__all__ = ["Template", "__version__", "get_template", "register_dataset", "register_model", "register_template"]

__version__ = "0.1.0"

_PLACES = {
    "get_template": "swift.prompts.api:get_template",
    "register_model": "swift.catalog.custom:register_model",
    "register_template": "swift.catalog.custom:register_template",
    "register_dataset": "swift.catalog.custom:register_dataset",
    "Template": "swift.catalog.custom:Template",
}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use, so that `import swift` costs nothing."""
    if name not in _PLACES:
        raise AttributeError(f"module 'swift' has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value
