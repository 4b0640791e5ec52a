"""SIGTERM and SIGINT, taken for as long as something serves: uvicorn alone would raise them again after a clean end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def taken_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Inside, the signals that ask for an end call `handler`; in another thread than the main one nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
