"""Does the learning rate go by the schedule that was asked for? Tried on a small weight, before a model is loaded."""

from __future__ import annotations

import math
from inspect import Parameter, signature
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR, get_scheduler
from transformers.trainer_utils import SchedulerType

from swift.core.did_you_mean import suggestion
from swift.core.errors import SwiftError, first_line, raise_together
from swift.params.optimizers import OF_EVALUATIONS
from swift.plan.train import TrainPlan

FLAG = "--lr_scheduler_kwargs"
OF_THE_RUN = ("optimizer", "num_warmup_steps", "num_training_steps", "last_epoch")
"""What a run says itself to its schedule."""
TRIED = 100
"""Steps that are tried of a run whose length is not known yet."""


def check_schedule(plan: TrainPlan) -> None:
    """Raise SwiftError for settings that the schedule does not have, lacks, or cannot work with."""
    name, given = plan.scheduler, dict(plan.scheduler_kwargs)
    takes = _settings(name)
    others = [each for each in given if each not in takes]
    lacking = [each for each, setting in takes.items() if setting.default is Parameter.empty and each not in given]
    raise_together(
        SwiftError(
            f"{FLAG}: the schedule {name} has no {each}",
            where=FLAG,
            next=suggestion(each, takes) or (f"it has {', '.join(takes)}" if takes else "leave it out"),
        )
        for each in others
    )
    if lacking:
        wanted = ", ".join(f'"{each}": …' for each in lacking)
        raise SwiftError(
            f"--lr_scheduler_type {name} needs {', '.join(lacking)}",
            where="--lr_scheduler_type",
            next=f"add {FLAG} '{{{wanted}}}'",
        )
    try:
        _try(plan, name, given)
    except Exception as error:  # whatever its code meets in a value of another kind
        raise SwiftError(
            f"--lr_scheduler_type {name} cannot work with {FLAG} as given",
            where=FLAG,
            why=first_line(error),
            next=f"it has {', '.join(takes)}",
        ) from error


def _settings(name: str) -> dict[str, Parameter]:
    kind = SchedulerType(name)
    if kind in (SchedulerType.CONSTANT, SchedulerType.CONSTANT_WITH_WARMUP):
        return {}  # they are handed none
    classes: dict[SchedulerType, Any] = {
        SchedulerType.REDUCE_ON_PLATEAU: ReduceLROnPlateau,
        SchedulerType.GREEDY: GreedyLR,
    }
    made_by = classes.get(kind, TYPE_TO_SCHEDULER_FUNCTION[kind])
    return {each: setting for each, setting in signature(made_by).parameters.items() if each not in OF_THE_RUN}


def _try(plan: TrainPlan, name: str, given: dict[str, Any]) -> None:
    steps = plan.group.max_steps if plan.group.max_steps > 0 else TRIED
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=plan.learning_rate)
    schedule: Any = get_scheduler(name, optimizer, plan.warmup(steps), steps, given)
    for _ in range(min(steps, TRIED)):
        optimizer.step()
        schedule.step(*((1.0,) if name in OF_EVALUATIONS else ()))
        rate = optimizer.param_groups[0]["lr"]
        if not math.isfinite(rate) or rate < 0:
            raise ValueError(f"it makes a learning rate of {rate}")
