"""Curves of a run: TensorBoard events while it goes on, PNG images at its end.

The libraries take time to import, so neither is before there is a number to draw.
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swift.core.log import once
from swift.core.optional_imports import installed


class TensorBoard(TrainerCallback):
    """Writes numbers under `train/…` and `eval/…` to the folder that `tensorboard --logdir` reads."""

    def __init__(self, folder: Path, *, again: bool = False):
        """`again`: the run has been going on here before, and does some of its steps once more."""
        self._folder, self._again = folder, again
        self._writer: Any = None
        self._begun_at = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the step that a run goes on from: what was written of later ones is done again."""
        self._begun_at = state.global_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add one point a curve."""
        if logs is None or not state.is_world_process_zero:
            return
        if self._writer is None:
            if not installed("tensorboard"):
                once("no TensorBoard events are written: pip install tensorboard, or --report_to none")
                return
            from torch.utils.tensorboard import SummaryWriter

            purged = self._begun_at + 1 if self._begun_at or self._again else None
            self._writer = SummaryWriter(str(self._folder), purge_step=purged)
        for name, value in logs.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(tag(name), value, state.global_step)
        self._writer.flush()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def tag(name: str) -> str:
    """`eval_loss` -> `eval/loss`, `loss` -> `train/loss`."""
    return f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}"


def draw(history: list[dict[str, Any]], folder: Path) -> None:
    """One PNG a curve of the log history, named after its tag with `_` for `/`. Needs Pillow, else says so."""
    if not installed("PIL"):
        once("no images are drawn: pip install pillow")
        return
    from swift.training.line_chart import chart

    points: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for event in history:
        for name, value in event.items():
            if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                points[tag(name)].append((event["step"], float(value)))
    folder.mkdir(parents=True, exist_ok=True)
    for name, series in points.items():
        smoothed = smooth([value for _, value in series])
        chart(name, series, smoothed).save(folder / f"{name.replace('/', '_')}.png")


def smooth(values: list[float], weight: float = 0.9) -> list[float]:
    """TensorBoard's smoothing: an exponential mean without bias at the start."""
    total, norm, out = 0.0, 0.0, []
    for value in values:
        total = weight * total + (1 - weight) * value
        norm = weight * norm + (1 - weight)
        out.append(total / norm)
    return out
