"""Can the optimizer that was asked for take a step here? Tried on a small weight, before any of a model are loaded."""

from __future__ import annotations

import torch
from torch import nn
from transformers import Trainer

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.plan.train import TrainPlan
from swift.training.training_arguments import training_arguments

ELEMENTS = 2**17
"""Of the weight; below 4,096 the optimizers in 8 bits keep their state in 32, below 100,000 none is paged."""
UNSUITED = {
    "galore": ("its settings are flags here", "--use_galore true, and adamw_torch, adafactor or adamw_8bit inside it"),
    "apollo": ("no flag names the modules that it works on", "--use_galore true saves the same memory"),
    "lomo": ("it steps inside the backward pass", "--use_galore true --galore_optim_per_parameter true does too"),
    "adalomo": ("it steps inside the backward pass", "--use_galore true --galore_optim_per_parameter true does too"),
    "schedule": (
        "the weights it trains are not those it would save",
        "--lr_scheduler_type constant needs no end",
    ),
}
"""First word of a name in transformers' list -> why a run cannot use the optimizer, and what does the same."""


def check_optimizer(plan: TrainPlan) -> None:
    """Raise SwiftError when the optimizer of the plan is none for a run, is not installed, or not for this device."""
    name = plan.optim.optim
    unsuited = UNSUITED.get(name.partition("_")[0])
    if unsuited is not None:
        raise SwiftError(f"--optim {name} does not work here", where="--optim", why=unsuited[0], next=unsuited[1])
    args = training_arguments(plan, plan.output_dir, steps=1, evaluates=False)
    try:
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(args)
        weight = nn.Parameter(torch.zeros(ELEMENTS, device=plan.device))
        weight.grad = torch.ones_like(weight)
        kind([weight], **settings).step()
    except Exception as error:  # packages fail in ways of their own, and whatever it is, there is no run
        log.debug("%s: %s", type(error).__name__, error)
        raise SwiftError(
            f"--optim {name} cannot take a step on this machine",
            where="--optim",
            why=str(error).strip().partition("\n")[0] or type(error).__name__,
            next="install what it needs, or use --optim adamw_torch",
        ) from error
