"""SIGTERM and Ctrl-C: finish the step or leave the evaluation, write a checkpoint, end. Twice stops at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swift.core.log import log

EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}
"""75 (EX_TEMPFAIL) tells a scheduler to run the command again."""
AT_ONCE = 5.0
"""Seconds in which a signal that comes again to one of several processes is the same wish: a scheduler that ends a job
tells all its processes, and so the launcher tells those that know already."""


class EvaluationStopped(Exception):
    """A signal came while the validation rows were being measured."""


class StopOnSignal(TrainerCallback):
    """Turns the first signal into "save and stop after this step", on all processes at the same step."""

    def __init__(self) -> None:
        self.received: int | None = None
        """The signal that ended the run, once it has."""
        self._pending: int | None = None
        self._since = 0.0

    @property
    def asked(self) -> bool:
        """Whether a signal has come to this process."""
        return self._pending is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle both signals inside, and give back the handlers that were there before.

        One of several processes that is ending for a signal hears no other: its launcher sends one as soon as the first
        of them has ended, and the others still have to say how to go on. Only a main thread can handle signals.
        """
        if threading.current_thread() is not threading.main_thread():
            log.warning("trained in a thread, where SIGTERM and Ctrl-C are not heard: they end the run without saving")
            yield
            return
        before = {number: signal.signal(number, self._note) for number in EXIT_CODES}
        try:
            yield
        finally:
            ending = self.asked and _of_several()
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if ending else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._pending is not None:
            if _of_several() and now - self._since < AT_ONCE:
                return
            os._exit(128 + number)
        self._pending, self._since = number, now
        log.warning("%s: saving a checkpoint; send it again to stop at once", signal.Signals(number).name)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for a checkpoint and the end, when a signal has come to any process."""
        self.obey(args, control)

    def obey(self, args: TrainingArguments, control: TrainerControl) -> None:
        """As `on_step_end`, anywhere that all processes come to together."""
        number = self._pending or 0
        if args.world_size > 1:
            shared = torch.tensor(number, device=args.device)
            dist.all_reduce(shared, op=dist.ReduceOp.MAX)
            number = int(shared)
        if number and not control.should_training_stop:
            self.received = number
            control.should_save = args.save_strategy != "no"
            control.should_training_stop = True


def _of_several() -> bool:
    """Whether a launcher has started this process, and others beside it."""
    return "LOCAL_RANK" in os.environ


def on_signal_exit_code(received: int) -> int:
    """The exit code that a run ended by `received` reports."""
    return EXIT_CODES[signal.Signals(received)]
