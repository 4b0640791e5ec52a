"""Names that libraries give a meaning to, of optimizers, schedules, trackers, settings: checked before any work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from swift.core.did_you_mean import suggestion
from swift.core.errors import SwiftError, raise_together
from swift.core.optional_imports import need
from swift.plan.deepspeed import ZeroPlan
from swift.plan.train import TrainPlan

OWN_TRACKERS = ("tensorboard",)
"""Trackers that `swift.training.curves` writes itself, when there is something to write."""
FORBIDDEN = "extra_forbidden"
"""Pydantic's word for a field that is not there."""
USUAL_OPTIMIZERS = ("adamw_torch",)
USUAL_SCHEDULES = ("cosine", "cosine_with_min_lr", "linear", "constant", "constant_with_warmup")
"""Names that are right; asking transformers takes seconds, as it imports torch for that."""


def check_names(plan: TrainPlan) -> None:
    """Raise SwiftError for an optimizer, a schedule or a tracker that does not exist, or is not installed.

    And for settings of DeepSpeed's that it does not know.
    """
    if plan.zero is not None:
        _check_zero(plan.zero)
    trackers = [name for name in plan.group.report_to if name not in (*OWN_TRACKERS, "all", "none")]
    if plan.optim.optim in USUAL_OPTIMIZERS and plan.scheduler in USUAL_SCHEDULES and not trackers:
        return
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    known = [name for name in trackers if name in INTEGRATION_TO_CALLBACK]
    raise_together(
        [
            *_unknown(plan.optim.optim, (name.value for name in OptimizerNames), "--optim"),
            *_unknown(plan.scheduler, (kind.value for kind in SchedulerType), "--lr_scheduler_type"),
            *(each for name in trackers for each in _unknown(name, INTEGRATION_TO_CALLBACK, "--report_to")),
            *_absent(known),
        ]
    )


def _check_zero(plan: ZeroPlan) -> None:
    from pydantic import ValidationError

    fields = need("deepspeed.runtime.zero.config", extra="deepspeed", why="--deepspeed").DeepSpeedZeroConfig
    given = {name: value for name, value in plan.config["zero_optimization"].items() if value != "auto"}
    try:
        fields(**given)
    except ValidationError as error:
        raise_together(
            SwiftError(
                f"--deepspeed: zero_optimization.{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}",
                where="--deepspeed",
                next=suggestion(str(wrong["loc"][0]), fields.model_fields) if wrong["type"] == FORBIDDEN else None,
            )
            for wrong in error.errors()
        )


def _absent(trackers: Sequence[str]) -> list[SwiftError]:
    if not trackers:
        return []
    from transformers.integrations.integration_utils import get_available_reporting_integrations

    here = get_available_reporting_integrations()
    return [
        SwiftError(f"{name} is not installed", where=f"--report_to {name}", next=f"pip install {name}")
        for name in trackers
        if name not in here
    ]


def _unknown(name: str, known: Iterable[str], flag: str) -> list[SwiftError]:
    names = list(known)
    if name in names:
        return []
    return [
        SwiftError(
            f"{flag} does not know {name!r}",
            where=flag,
            next=suggestion(name, names) or f"one of {', '.join(names)}",
        )
    ]
