"""How a model trains on its own answers, decided: sampling, reward, and the numbers of PPO. Pure: no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from swift.catalog import Catalog
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.args import Args
from swift.params.checkpoint_args import adapter_config, adapter_folder
from swift.params.groups import Generate, Rlhf
from swift.plan.model import ModelPlan, plan_model

TEMPERATURE = 0.7
"""Of the answers when none is given, as in the trainer that 2.5 called."""


@dataclass(frozen=True, kw_only=True)
class AnswersPlan:
    """How the model gives the answers that it is trained on."""

    max_new_tokens: int
    temperature: float
    """Of the answers, and of the policy whose log-probabilities are compared: the two are one distribution."""
    top_k: int
    top_p: float
    forward_rows: int
    """Rows of one forward pass, and answers under way at once, while rolling out."""

    @classmethod
    def of(cls, args: Args, longest: int, temperature: float) -> AnswersPlan:
        """As the flags say; up to `longest` tokens, at `temperature` where none is given."""
        generate = args[Generate]
        return cls(
            max_new_tokens=longest,
            temperature=temperature if generate.temperature is None else generate.temperature,
            top_k=max(0, generate.top_k or 0),
            top_p=1.0 if generate.top_p is None else generate.top_p,
            forward_rows=args[Rlhf].local_rollout_forward_batch_size,
        )

    def summary(self) -> str:
        """As `answers of up to 64 tokens at temperature 0.9`."""
        cut = [
            *((f"top_k {self.top_k}",) if self.top_k else ()),
            *((f"top_p {self.top_p:g}",) if self.top_p < 1 else ()),
        ]
        biased = f", {' and '.join(cut)} (the loss goes by all tokens, so the KL is off a little)" if cut else ""
        return f"answers of up to {self.max_new_tokens} tokens at temperature {self.temperature:g}{biased}"


@dataclass(frozen=True, kw_only=True)
class PpoPlan:
    """What PPO does with the answers that the model gives."""

    answers: AnswersPlan
    reward_model: ModelPlan
    """Where it is an adapter, `adapter` names its folder, and the rest the model below it."""
    kl_coef: float
    whiten_rewards: bool
    gamma: float
    lam: float
    cliprange: float
    cliprange_value: float
    vf_coef: float
    missing_eos_penalty: float
    epochs: int
    mini_batches: int

    def summary(self, rows: int) -> list[str]:
        """Lines for the plan that a command prints; an optimizer step has `rows`."""
        penalty = f", -{self.missing_eos_penalty:g} without an end" if self.missing_eos_penalty else ""
        return [
            f"  loss      PPO: clipped policy loss ({self.cliprange:g}) + {self.vf_coef:g} x clipped value loss "
            f"({self.cliprange_value:g}), gamma {self.gamma:g}, lambda {self.lam:g}; dropout off",
            f"  roll-outs {rows * self.mini_batches} {self.answers.summary()}, trained on "
            f"{times(self.epochs, self.mini_batches)}",
            f"  reward    {self.reward_model.adapter or self.reward_model.source}{penalty}, "
            f"- {self.kl_coef:g} x KL{', whitened' if self.whiten_rewards else ''}",
        ]


def times(epochs: int, mini_batches: int) -> str:
    """As `3 times in 2 mini-batches`."""
    often = {1: "once", 2: "twice"}.get(epochs, f"{epochs} times")
    return often if mini_batches == 1 else f"{often} in {mini_batches} mini-batches"


def plan_ppo(args: Args, catalog: Catalog, machine: Machine) -> PpoPlan:
    """Decide a PPO run. Raises SwiftError for a reward model that cannot be one."""
    rlhf = args[Rlhf]
    return PpoPlan(
        answers=AnswersPlan.of(args, args[Generate].max_new_tokens, TEMPERATURE),
        reward_model=plan_reward_model(args, catalog, machine),
        kl_coef=rlhf.kl_coef,
        whiten_rewards=rlhf.whiten_rewards,
        gamma=rlhf.gamma,
        lam=rlhf.lam,
        cliprange=rlhf.cliprange,
        cliprange_value=rlhf.cliprange_value,
        vf_coef=rlhf.vf_coef,
        missing_eos_penalty=rlhf.missing_eos_penalty or 0.0,
        epochs=rlhf.num_ppo_epochs,
        mini_batches=rlhf.num_mini_batches,
    )


def plan_reward_model(args: Args, catalog: Catalog, machine: Machine) -> ModelPlan:
    """The reward model that the flags name. Raises SwiftError for one that cannot be had."""
    rlhf = args[Rlhf]
    source, revision = rlhf.reward_model_id_or_path, rlhf.reward_model_revision
    folder = Path(source).expanduser() if source else None
    adapter = None
    if folder is not None and (inside := adapter_folder(folder)) is not None:
        adapter = str(folder)
        source = adapter_config(inside).get("base_model_name_or_path")
    named = args.with_values(model_type=rlhf.reward_model_type, model_id_or_path=source, model_revision=revision)
    try:
        return replace(plan_model(named, catalog, machine, of_hub=("reward_model_revision",)), adapter=adapter)
    except SwiftError as error:
        raise SwiftError(
            f"the reward model: {error.what}", where="--reward_model_id_or_path", why=error.why, next=error.next
        ) from error
