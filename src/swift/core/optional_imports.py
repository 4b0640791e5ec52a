"""Libraries that only some users need: imported on use, with the pip line when they are missing."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from swift.core.errors import SwiftError


class MissingPackage(SwiftError):
    """A library is not installed: nobody's row or request is at fault."""


def installed(module: str) -> bool:
    """Whether `module` can be imported, without importing it.

    A folder of that name in the working directory, where `python -m` looks too, is a package without a file of its own
    to Python. Few libraries are made so (optimum is), and they lie beside what pip wrote about them.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is not None:
        return spec is not None
    return any(any(Path(place).parent.glob("*.dist-info")) for place in spec.submodule_search_locations or ())


def need(module: str, *, extra: str, why: str) -> ModuleType:
    """Import `module` or say which extra brings it. Raises MissingPackage when it is not installed."""
    if not installed(module.partition(".")[0]):
        raise MissingPackage(
            f"{why} needs the package `{module}`, which is not installed",
            next=f"pip install 'swift-llm[{extra}]'",
        )
    return importlib.import_module(module)
