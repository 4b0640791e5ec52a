"""What a person and a program see of a run: a bar or plain lines, and logging.jsonl."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swift.core.log import log
from swift.training.run_dir import LOG, append
from swift.training.throughput import Meter

HIDDEN = ("total_flos", "step")
"""Fields of the log file that a person does not need on the screen."""


class Progress(TrainerCallback):
    """Writes each log event to logging.jsonl at once, and shows it: on a terminal beside a bar, elsewhere as a line."""

    def __init__(self, run: Path, meter: Meter, *, bar: bool):
        self._file = run / LOG
        self._meter = meter
        self._wants_bar = bar and (sys.stderr.isatty() or "ipykernel" in sys.modules)  # notebooks show bars too
        self._bar: tqdm | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock and the bar."""
        self._meter.begin(state.global_step)
        if self._wants_bar and state.is_world_process_zero:
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc="Train", dynamic_ncols=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        self._meter.step_done(state.global_step, state.max_steps)
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write and show one event."""
        if logs is None or not state.is_world_process_zero:
            return
        event = {**logs, **self._meter.progress(state.global_step, state.max_steps)}
        append(self._file, event)
        if self._bar is not None:
            self._bar.set_postfix(_short(logs), refresh=False)
            self._bar.write(_line(event), file=sys.stderr)
        else:
            log.info(_line(event))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the bar where it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _short(logs: dict[str, Any]) -> dict[str, str]:
    wanted = {"loss": "loss", "tokens/s": "tokens/s", "memory(GiB)": "GiB"}
    return {short: f"{logs[name]:.4g}" for name, short in wanted.items() if name in logs}


def _line(event: dict[str, Any]) -> str:
    """`step 5/12 · loss 10.77 · acc 0.0272 · … · 24s left`"""
    where = ("global_step/max_steps", "percentage", "elapsed_time", "remaining_time")
    shown = {name: value for name, value in event.items() if name not in (*HIDDEN, *where)}
    numbers = [
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()
    ]
    return " · ".join(
        [
            f"step {event['global_step/max_steps']}",
            *numbers,
            f"{event['elapsed_time']} gone",
            f"{event['remaining_time']} left",
        ]
    )
