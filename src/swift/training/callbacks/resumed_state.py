"""A resumed run logs, evaluates and saves as often as it is told now, and goes by the metric that it is told now."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swift.core.log import log
from swift.training import checkpoints


class ResumedState(TrainerCallback):
    """Puts intervals and the best checkpoint right, which the state of a checkpoint brings from the run before."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The state has been loaded, and no step taken."""
        if state.global_step == 0:
            return
        state.compute_steps(args, state.max_steps)
        if state.best_metric is not None:
            _judge_again(args, state)


def _judge_again(args: TrainingArguments, state: TrainerState) -> None:
    """Find the best of the evaluations so far by the metric of this run, where it is not that of the run before."""
    name, choose = args.metric_for_best_model, max if args.greater_is_better else min
    measured = {int(event["step"]): event[f"eval_{name}"] for event in state.log_history if f"eval_{name}" in event}
    measured = {step: value for step, value in measured.items() if not math.isnan(value)}
    best = choose(measured.values(), default=None)
    if best == state.best_metric:
        return
    state.best_metric, before = best, state.best_model_checkpoint
    state.best_global_step = choose(measured, key=measured.__getitem__, default=None)
    folders = checkpoints.checkpoints(Path(before).parent) if before is not None else []
    saved = [folder for folder in folders if checkpoints.step_of(folder) in measured]
    kept = choose(saved, key=lambda folder: measured[checkpoints.step_of(folder)], default=None)
    state.best_model_checkpoint = None if kept is None else str(kept)
    shown = "none: the run before did not measure it" if kept is None else kept.name
    log.info("best checkpoint so far by %s: %s", name, shown)
