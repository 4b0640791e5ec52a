"""A resumed run goes by the learning rate, the schedule and the optimizer settings of its own command line."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class ResumedSchedule(TrainerCallback):
    """Puts the planned settings back over those that came with the optimizer's state.

    The state brings the last learning rate of the run before, which is 0 at the end of most schedules, and its highest
    one, decay and betas. Moments and step count stay. A schedule that is no function of the step
    (`reduce_lr_on_plateau`) keeps the learning rate it had reached.
    """

    def __init__(self) -> None:
        self._planned: list[dict[str, Any]] = []

    def planned(self, optimizer: Optimizer) -> None:
        """Note the settings of an optimizer that has loaded nothing yet."""
        self._planned = [
            {name: value for name, value in group.items() if name not in ("params", "initial_lr")}
            for group in optimizer.param_groups
        ]

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        """The optimizer's state has been loaded, and no step taken."""
        if state.global_step == 0:
            return
        rates = [group["lr"] for group in self._planned]
        if isinstance(lr_scheduler, LambdaLR):
            step, factors = lr_scheduler.last_epoch, lr_scheduler.lr_lambdas
            now = [rate * factor(step) for rate, factor in zip(rates, factors, strict=True)]
            lr_scheduler.load_state_dict({**lr_scheduler.state_dict(), "base_lrs": rates, "_last_lr": now})
        else:
            now = [group["lr"] for group in optimizer.param_groups]
        for group, own, rate, reached in zip(optimizer.param_groups, self._planned, rates, now, strict=True):
            group.update({**own, "initial_lr": rate, "lr": reached})
