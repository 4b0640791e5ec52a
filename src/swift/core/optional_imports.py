"""Libraries that only some users need: imported on use, with the pip line when they are missing."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from swift.core.errors import SwiftError


class MissingPackage(SwiftError):
    """A library is not installed: nobody's row or request is at fault."""


def installed(module: str) -> bool:
    """Whether `module` can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def need(module: str, *, extra: str, why: str) -> ModuleType:
    """Import `module` or say which extra brings it. Raises MissingPackage when it is not installed."""
    if not installed(module.partition(".")[0]):
        raise MissingPackage(
            f"{why} needs the package `{module}`, which is not installed",
            next=f"pip install 'swift-llm[{extra}]'",
        )
    return importlib.import_module(module)
