"""Imports of large libraries, a quarter quicker."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LARGE = 100
"""Modules of a large library at the least."""

COMPILE_NOTHING = "TORCHDYNAMO_DISABLE"
"""torch's own switch, read whenever something is to be compiled."""


@contextmanager
def quick_imports() -> Iterator[None]:
    """Collect no garbage inside, and compile nothing.

    Modules are no garbage, and each pass of the collector looks through all that are there. What a large library has
    brought stays for good, so that later passes leave it out, too.

    bitsandbytes, which PEFT imports wherever it is installed, decorates four functions with `torch.compile`, and the
    decorator alone imports the compiler. The four stand in for kernels that CPUs and NVIDIA's GPUs have.
    """
    enabled, before = gc.isenabled(), len(sys.modules)
    unsaid = COMPILE_NOTHING not in os.environ
    gc.disable()
    if unsaid:
        os.environ[COMPILE_NOTHING] = "1"
    try:
        yield
    finally:
        if unsaid:
            os.environ.pop(COMPILE_NOTHING, None)
        if len(sys.modules) - before >= LARGE:
            gc.freeze()
        if enabled:
            gc.enable()
