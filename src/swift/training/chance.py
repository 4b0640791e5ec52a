"""Work beside a training that leaves its chance alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch


@contextmanager
def same_chance() -> Iterator[None]:
    """What is drawn inside changes nothing that is drawn afterwards."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    plain, arrays = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(plain)
        numpy.random.set_state(arrays)
