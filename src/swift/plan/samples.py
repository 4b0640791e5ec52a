"""Answers before and after training: how many, how given, and when the earlier ones can be had. Pure: no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from swift.params.alignment import ALGORITHMS, SAMPLES
from swift.params.args import Args
from swift.params.groups import Generate, Train
from swift.params.idle_flags import SHORT
from swift.plan.infer import SamplingPlan, plan_sampling, say_greedy
from swift.plan.tuner import TunerPlan, starts_as_the_base

TOKENS = {"sft": 64, "rlhf": 128}
"""Of an answer, where `--max_new_tokens` is not given: enough to see its manner."""


FEW = 2


@dataclass(frozen=True, kw_only=True)
class SamplesPlan:
    """The rows whose prompts are answered before and after training."""

    count: int | None
    """None: as many as `FEW` in a run that is not short."""
    sampling: SamplingPlan
    base_stays: bool
    """Whether the model of before is there afterwards, below its adapter, so that no run waits for it to answer."""

    def of_run(self, steps: int) -> int:
        """How many rows are answered in a run of so many optimizer steps."""
        return self.count if self.count is not None else FEW if steps >= SHORT else 0


def plan_samples(args: Args, tuner: TunerPlan) -> SamplesPlan | None:
    """What `--answer_samples` asks for; None where that is nothing, or the method gives no answers."""
    count = args.values.get(SAMPLES, 0)
    if count == 0 or (args.command == "rlhf" and SAMPLES not in ALGORITHMS[args.values["rlhf_type"]].flags):
        return None
    sampling = plan_sampling(args[Generate], {})
    say_greedy(args[Generate], sampling, "answer samples")
    if not is_given(args, "max_new_tokens"):
        sampling = replace(sampling, max_new_tokens=TOKENS[args.command])
    train = args[Train]
    fresh = not (train.resume_from_checkpoint and train.resume_only_model)
    base_stays = tuner.sft_type != "full" and fresh and starts_as_the_base(tuner)
    return SamplesPlan(count=count, sampling=sampling, base_stays=base_stays)


def is_given(args: Args, name: str) -> bool:
    """By the user, or by the one who began the run that goes on."""
    return args.is_explicit(name) or args.origins.get(name) == "checkpoint"
