"""Every training method in a table: the rows it takes, how rows become a batch, and what it minimises.

`swift sft` and `swift pt` are methods of their own, `swift rlhf` has one for each `--rlhf_type`. A new one is a file in
`swift/training/objectives/` and a row here. Code is named, so that planning imports none of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from swift.core.did_you_mean import suggestion
from swift.core.errors import SwiftError
from swift.params.args import Args
from swift.params.frozen import Frozen

Kind = Literal["chat", "pairs", "kto", "prompt"]
"""What a row becomes: one conversation, a pair of answers, one answer with a label, or a prompt to answer."""


SFT = "swift.training.objectives.sft:build"


class Method(Frozen):
    """One way to train."""

    kind: Kind
    collator: str = "swift.training.batches:build"
    """`module:function` from a Setting (below) to what makes a batch of items."""
    objective: str = SFT
    """`module:function` from `swift.training.objectives.Setting` to an Objective."""

    ranking: tuple[str, ...] = ()
    """Metrics besides the loss that tell a better checkpoint from a worse one."""
    scores: bool = False
    """Whether what is trained gives scores of answers instead of answers."""

    arrange: str | None = None
    """`module:function` from a Setting to the rows in the order in which they are trained; None shuffles them."""


GENERATED = ("rouge-1", "rouge-2", "rouge-l", "bleu-4")
"""Metrics of answers that are generated."""
REWARDS = ("rewards/accuracies", "rewards/margins", "rewards/chosen", "nll_loss")
PAIRS = "swift.training.preference_batches:build_pairs"
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "sft": Method("chat", objective=SFT, ranking=("acc",)),
        "pt": Method("chat", objective=SFT, ranking=("acc",)),
        "dpo": Method("pairs", PAIRS, "swift.training.objectives.dpo:build", REWARDS),
        "orpo": Method(
            *("pairs", PAIRS, "swift.training.objectives.orpo:build"),
            ranking=(*REWARDS, "log_odds_ratio", "log_odds_chosen"),
        ),
        "simpo": Method("pairs", PAIRS, "swift.training.objectives.cpo:build", REWARDS),
        "cpo": Method("pairs", PAIRS, "swift.training.objectives.cpo:build", REWARDS),
        "rm": Method(
            *("pairs", PAIRS, "swift.training.objectives.reward:build"),
            ranking=("accuracy", "rewards/margins"),
            scores=True,
        ),
        "kto": Method(
            *("kto", "swift.training.preference_batches:build_unpaired", "swift.training.objectives.kto:build"),
            ranking=("rewards/margins", "rewards/chosen"),
        ),
        "ppo": Method(
            *("prompt", "swift.training.policy_gradient.schedule:collator", "swift.training.policy_gradient.ppo:build"),
            arrange="swift.training.policy_gradient.schedule:arrange",
        ),
        "grpo": Method(
            *(
                "prompt",
                "swift.training.policy_gradient.schedule:collator",
                "swift.training.policy_gradient.grpo:build",
            ),
            arrange="swift.training.policy_gradient.schedule:arrange",
        ),
    }
)


def method_name(args: Args) -> str:
    """The method that a training command asks for."""
    return args.values["rlhf_type"] if args.command == "rlhf" else args.command


def plan_best_metric(args: Args) -> str:
    """The metric by which the best checkpoint is told. Raises SwiftError for one that the method does not log."""
    given, generates = args.values["metric_for_best_model"], args.values["predict_with_generate"]
    if given is None:
        return "rouge-l" if generates else "loss"
    known = ("loss", *METHODS[method_name(args)].ranking, *(GENERATED if generates else ()))
    name = given.removeprefix("eval_")
    if name not in known:
        raise SwiftError(
            f"--metric_for_best_model {given} does not tell the best checkpoint of {method_name(args)}",
            where="--metric_for_best_model",
            next=suggestion(name, known) or f"one of {', '.join(known)}",
        )
    return name
