"""How fast a run goes, how much memory it takes, and how long it still needs."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Meter:
    """A clock over optimizer steps and tokens that stands still while the run evaluates or saves.

    The first `warmup` steps (a share of the steps when below 1) do not count for the speed.
    """

    def __init__(self, warmup: float = 0.0):
        self._warmup = warmup
        self._begun = time.monotonic()
        self._paused = 0.0
        self._first_step = 0
        self._window = (0.0, 0)
        self._speed_from: tuple[float, int] = (0.0, 0)

    def begin(self, step: int) -> None:
        """The loop starts (or resumes) after `step`."""
        self._begun, self._paused, self._first_step = time.monotonic(), 0.0, step
        self._window = (0.0, 0)
        self._speed_from = (0.0, step)

    def step_done(self, step: int, steps: int) -> None:
        """Note the end of the warm-up."""
        warmup = self._warmup * steps if self._warmup < 1 else self._warmup
        if step - self._first_step <= warmup:
            self._speed_from = (self._worked(), step)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside is no training."""
        start = time.monotonic()
        yield
        self._paused += time.monotonic() - start

    def speeds(self, step: int, tokens: int) -> dict[str, float]:
        """Steps a second since the warm-up; tokens a second since the last call (`tokens` counts from the start)."""
        now = self._worked()
        since, before = self._speed_from
        at, counted = self._window
        self._window = (now, tokens)
        speeds = {"tokens/s": round((tokens - counted) / max(now - at, 1e-9), 2)}
        if step > before:
            speeds = {"train_speed(iter/s)": round((step - before) / max(now - since, 1e-9), 6), **speeds}
        return speeds

    def progress(self, step: int, steps: int) -> dict[str, str]:
        """The four fields that say where a run stands."""
        elapsed = time.monotonic() - self._begun
        done = step - self._first_step
        remaining = elapsed / done * (steps - step) if done else 0.0
        return {
            "global_step/max_steps": f"{step}/{steps}",
            "percentage": f"{100 * step / max(steps, 1):.2f}%",
            "elapsed_time": in_words(elapsed),
            "remaining_time": in_words(remaining),
        }

    def elapsed(self) -> float:
        """Seconds since the loop started."""
        return time.monotonic() - self._begun

    def _worked(self) -> float:
        return time.monotonic() - self._begun - self._paused


def peak_memory() -> float:
    """The most memory in GiB this process has used: of its accelerator, or the resident set on a CPU."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_reserved() / 2**30, 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**30 if sys.platform == "darwin" else 2**20), 2)


def in_words(seconds: float) -> str:
    """`75` -> `1m 15s`."""
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "m")]
    given = [f"{value}{unit}" for value, unit in parts if value]
    return " ".join([*given, f"{whole % 60}s"])
