"""How a model learns from groups of its own answers, decided: rewards, advantages, loss. Pure: no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from swift.catalog import Catalog
from swift.catalog.rewards import load_rewards
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.alignment import ALGORITHMS, loss_type
from swift.params.args import Args
from swift.params.groups import Generate, Rlhf
from swift.plan.model import ModelPlan
from swift.plan.roll_outs import AnswersPlan, plan_reward_model, times

TEMPERATURE = 0.9
LENGTH = 512
"""Temperature of the answers and most tokens of one where they are not given, as in later ms-swift."""
SOFT_PART = 5
"""`soft_overlong` falls over a fifth of the longest answer, as in DAPO."""
MEANS = {
    "grpo": "a mean over answers of the mean over their tokens",
    "dapo": "a mean over the tokens of all answers",
    "dr_grpo": "a sum over tokens, divided by answers x the most tokens of one",
}


@dataclass(frozen=True, kw_only=True)
class GrpoPlan:
    """What GRPO does with the answers that the model gives."""

    answers: AnswersPlan
    functions: tuple[str, ...]
    plugins: tuple[Path, ...]
    reward_model: ModelPlan | None
    weights: tuple[float, ...]
    """Of the functions, then of the reward model."""
    generations: int
    loss_type: str
    beta: float
    epsilon: float
    epsilon_high: float
    scale: Literal["group", "batch", "none"]
    """What a reward's distance from the mean of its group is divided by: a standard deviation, or nothing."""
    overlong_filter: bool
    dynamic_sample: bool
    max_resample_times: int
    soft_cache_length: int
    log_completions: bool
    iterations: int
    mini_batches: int

    @property
    def reward_names(self) -> tuple[str, ...]:
        """Of all rewards, in the order of `weights`."""
        return (*self.functions, *(("reward_model",) if self.reward_model else ()))

    def summary(self, rows: int) -> list[str]:
        """Lines for the plan that a command prints; an optimizer step has `rows`."""
        kl = f", + {self.beta:g} x KL to the reference" if self.beta else ", no reference"
        clip = f"{self.epsilon:g} below, {self.epsilon_high:g} above"
        size = rows * self.mini_batches
        rewards = zip(self.weights, self.reward_names, strict=True)
        scaled = {"group": ", divided by its standard deviation", "none": ""}
        scale = {**scaled, "batch": ", divided by the standard deviation of the roll-out"}[self.scale]
        left_out = [
            *(("cut answers",) if self.overlong_filter else ()),
            *(("groups without variance",) if self.dynamic_sample else ()),
        ]
        again = f" (sampled again up to {self.max_resample_times} times)" if self.dynamic_sample else ""
        return [
            f"  loss      GRPO: policy loss clipped {clip}, {MEANS[self.loss_type]}{kl}; dropout off",
            f"  roll-outs {size // self.generations} prompts x {self.generations} {self.answers.summary()}, trained on "
            f"{times(self.iterations, self.mini_batches)}",
            f"  reward    {' + '.join(f'{weight:g} x {name}' for weight, name in rewards)}, "
            f"less the mean of its group{scale}",
            *((f"  left out  {' and '.join(left_out)}{again}",) if left_out else ()),
        ]


def plan_grpo(args: Args, catalog: Catalog, machine: Machine) -> GrpoPlan:
    """Decide a GRPO run. Raises SwiftError for rewards that cannot be had."""
    rlhf = args[Rlhf]
    plugins = tuple(Path(path).expanduser() for path in rlhf.external_plugins)
    load_rewards(rlhf.reward_funcs, plugins)
    given = args.is_explicit("max_new_tokens") or args.origins.get("max_new_tokens") == "checkpoint"
    longest = args[Generate].max_new_tokens if given else LENGTH
    model = (
        plan_reward_model(args, catalog, machine) if rlhf.reward_model_id_or_path or rlhf.reward_model_type else None
    )
    count = len(rlhf.reward_funcs) + (model is not None)
    if rlhf.reward_weights and len(rlhf.reward_weights) != count:
        raise SwiftError(
            f"--reward_weights has {len(rlhf.reward_weights)} weights for {count} rewards",
            next="give one for each function of --reward_funcs, and the last for the reward model if there is one",
        )
    loss = loss_type(args) or "grpo"
    scale = rlhf.scale_rewards
    return GrpoPlan(
        answers=AnswersPlan.of(args, longest, TEMPERATURE),
        functions=rlhf.reward_funcs,
        plugins=plugins,
        reward_model=model,
        weights=rlhf.reward_weights or (1.0,) * count,
        generations=rlhf.num_generations,
        loss_type=loss,
        beta=ALGORITHMS["grpo"].beta if rlhf.beta is None else rlhf.beta,
        epsilon=rlhf.epsilon,
        epsilon_high=rlhf.epsilon if rlhf.epsilon_high is None else rlhf.epsilon_high,
        scale=("none" if loss == "dr_grpo" else "group") if scale is None else scale,
        overlong_filter=rlhf.overlong_filter,
        dynamic_sample=rlhf.dynamic_sample,
        max_resample_times=rlhf.max_resample_times,
        soft_cache_length=_soft_part(rlhf, longest),
        log_completions=rlhf.log_completions,
        iterations=rlhf.num_iterations,
        mini_batches=rlhf.num_mini_batches,
    )


def _soft_part(rlhf: Rlhf, longest: int) -> int:
    part = max(1, longest // SOFT_PART) if rlhf.soft_cache_length is None else rlhf.soft_cache_length
    if part > longest:
        raise SwiftError(
            f"--soft_cache_length {part} is longer than the longest answer ({longest})",
            where="--soft_cache_length",
            next="give the last tokens of --max_completion_length, over which the penalty grows",
        )
    return part
