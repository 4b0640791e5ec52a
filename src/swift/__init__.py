"""One command line for the life of a language model after pre-training."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "swift.api.calls": ("check", "deploy", "evaluate", "export", "infer", "merge", "pt", "rlhf", "sft"),
    "swift.api.model": ("Chat", "Model", "load"),
    "swift.api.results": ("Endpoint", "Evaluation", "Run"),
    "swift.catalog.custom": ("Template", "register_dataset", "register_model", "register_template"),
    "swift.checking.verdict": ("Verdict",),
    "swift.core.errors": ("SwiftError",),
    "swift.prompts.api": ("get_template",),
}
_HOME = {name: module for module, names in _PLACES.items() for name in names}

__all__ = ["__version__", *_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import a public name on its first use, so that `import swift` costs nothing. Types stand in `__init__.pyi`."""
    if name not in _HOME:
        raise AttributeError(f"module 'swift' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
