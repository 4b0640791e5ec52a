"""What `swift rlhf` minimises and what it compares with, decided. Pure: no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from swift.catalog import Catalog
from swift.core.errors import SwiftError
from swift.core.machine import Machine
from swift.params.alignment import ALGORITHMS, has_reference, loss_type, the_reference_can_be_asked_first
from swift.params.args import Args
from swift.params.flag import chosen
from swift.params.groups import Rlhf, Train
from swift.plan.grpo import GrpoPlan, plan_grpo
from swift.plan.model import ModelPlan, plan_model
from swift.plan.roll_outs import AnswersPlan, PpoPlan, plan_ppo
from swift.plan.samples import is_given
from swift.plan.tuner import TunerPlan, starts_as_the_base

ReferenceKind = Literal["adapter off", "start", "model"]
"""The model without its adapter, the trained weights as they were at the start, or a model of its own."""
OWN_DEFAULTS: Mapping[str, tuple[str, Any]] = MappingProxyType({"kto": ("batch_size", 4), "rm": ("lora_dropout", 0.0)})
"""What algorithms take for a flag that is not given: KTO a micro-batch that it can estimate its KL from, reward models
no chance in the scores that they compare."""


@dataclass(frozen=True, kw_only=True)
class LossPlan:
    """The loss of one algorithm with its numbers; those that it does not read have no effect."""

    algorithm: str
    loss_type: str
    """One of the algorithm's losses; the algorithm's own name where it has one only."""
    beta: float
    label_smoothing: float = 0.0
    simpo_gamma: float = 0.0
    nll_weight: float = 0.0
    """What the mean negative log-likelihood of the chosen answers' tokens counts beside the preference loss."""
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def summary(self) -> str:
        """The loss in words, as `sigmoid, beta 0.1, + 1.0 x nll of the chosen answer`."""
        if self.algorithm == "rm":
            return "Bradley-Terry: -log sigmoid(score of chosen - score of rejected), scored at the last token"
        parts = [self.loss_type, f"beta {self.beta:g}"]
        if self.label_smoothing:
            parts.append(f"label smoothing {self.label_smoothing:g}")
        if self.loss_type == "simpo":
            parts.append(f"gamma {self.simpo_gamma:g}")
        if self.algorithm == "kto":
            parts.append(f"desirable x {self.desirable_weight:g}, undesirable x {self.undesirable_weight:g}")
        if self.nll_weight:
            answers = "answers" if self.algorithm == "orpo" else "answer"
            parts.append(f"+ {float(self.nll_weight)} x nll of the chosen {answers}")
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class ReferencePlan:
    """The model that the policy is compared with."""

    kind: ReferenceKind
    model: ModelPlan | None = None
    """Set where it is a model of its own; None there stands for the weights that training starts from."""
    precompute: bool | None
    """Whether its log-probabilities are computed before training; None decides by what it saves."""

    def asked_first(self, steps: int, per_epoch: int) -> bool:
        """Whether it is asked before training: as `--precompute_ref_log_probs` says, else where it saves work.

        It does where the reference is a model of its own, which then leaves the memory, and where rows come again.
        """
        if self.precompute is not None:
            return self.precompute
        return self.kind == "model" or steps > per_epoch

    def summary(self) -> str:
        """One line for the plan that a command prints."""
        if self.kind == "adapter off":
            return "the model with its adapter switched off"
        if self.kind == "start":
            return "the model with the adapter it starts from"
        return f"a model of its own, {self.model.summary() if self.model else 'loaded from the start of the run'}"


@dataclass(frozen=True, kw_only=True)
class AlignmentPlan:
    """What is special about an alignment run."""

    loss: LossPlan
    ppo: PpoPlan | None = None
    """Set for PPO, which has no other loss."""
    grpo: GrpoPlan | None = None
    """Set for GRPO, which has no other loss."""
    reference: ReferencePlan | None
    dropout: bool
    """Whether dropout stays on: in a reward model whose adapter is asked to have some. Where two models are compared it
    would count as a difference."""
    idle_dropout: str | None = None
    """The flag that asks for dropout where there is none."""

    @property
    def answers(self) -> AnswersPlan | None:
        """How the model gives answers, where it is trained on its own."""
        own = self.ppo or self.grpo
        return own.answers if own else None

    @property
    def reward_model(self) -> ModelPlan | None:
        """The model that scores answers while training."""
        own = self.ppo or self.grpo
        return own.reward_model if own else None

    def shared_out(self) -> AlignmentPlan:
        """As it is where each process has a share of every weight: the reference is asked while training if it can be.

        It is shared out too then. Before training each process would need all of it, on its own.
        """
        if self.reference is None or self.reference.precompute is not None:
            return self
        return replace(self, reference=replace(self.reference, precompute=self.reference.kind == "start"))

    def summary(self, rows: int) -> list[str]:
        """Lines for the plan that a command prints; an optimizer step has `rows`."""
        own = self.ppo or self.grpo
        lines = own.summary(rows) if own else [f"  loss      {self.loss.summary()}{self._off()}"]
        if self.reference is not None:
            lines.append(f"  reference {self.reference.summary()}")
        return lines

    def _off(self) -> str:
        if self.idle_dropout:
            return f"; dropout off (--{self.idle_dropout} has no effect)"
        return "" if self.dropout else "; dropout off"


def with_own_defaults(args: Args) -> Args:
    """The arguments with the default that the algorithm has of its own (`OWN_DEFAULTS`)."""
    if args.command != "rlhf" or args.values["rlhf_type"] not in OWN_DEFAULTS:
        return args
    name, value = OWN_DEFAULTS[args.values["rlhf_type"]]
    return args if is_given(args, name) else args.with_values(**{name: value})


def _goes_on(args: Args, name: str) -> bool:
    """Whether the run that goes on has the value from its beginning."""
    return args.origins.get(name) == "checkpoint" and not args.values["resume_only_model"]


def plan_alignment(args: Args, catalog: Catalog, machine: Machine, tuner: TunerPlan) -> AlignmentPlan:
    """Decide the loss and the reference. Flags that do not fit have been refused (see `swift.params.alignment`)."""
    rlhf = args[Rlhf]
    dropout = [name for name, value in tuner.settings.items() if name.endswith("_dropout") and value]
    asked = [name for name in dropout if args.is_explicit(name) or _goes_on(args, name)]
    return AlignmentPlan(
        loss=_loss(args, rlhf),
        ppo=plan_ppo(args, catalog, machine) if rlhf.rlhf_type == "ppo" else None,
        grpo=plan_grpo(args, catalog, machine) if rlhf.rlhf_type == "grpo" else None,
        reference=_reference(args, catalog, machine, tuner) if has_reference(args) else None,
        dropout=rlhf.rlhf_type == "rm" and bool(asked),
        idle_dropout=None if rlhf.rlhf_type == "rm" else next(iter(asked), None),
    )


def _loss(args: Args, rlhf: Rlhf) -> LossPlan:
    algorithm = ALGORITHMS[rlhf.rlhf_type]
    loss = loss_type(args) or rlhf.rlhf_type
    smoothing = rlhf.label_smoothing
    if loss == "exo_pair" and not smoothing:
        smoothing = 1e-3  # the reverse KL to certain labels is infinite
    nll = {"rpo_alpha": rlhf.rpo_alpha, "cpo_alpha": rlhf.cpo_alpha, None: 0.0}[algorithm.nll]
    return LossPlan(
        algorithm=rlhf.rlhf_type,
        loss_type=loss,
        beta=rlhf.beta if rlhf.beta is not None else algorithm.beta,
        label_smoothing=smoothing,
        simpo_gamma=rlhf.simpo_gamma if loss == "simpo" else 0.0,
        nll_weight=1.0 if rlhf.rlhf_type == "orpo" else nll,
        desirable_weight=rlhf.desirable_weight,
        undesirable_weight=rlhf.undesirable_weight,
    )


def _reference(args: Args, catalog: Catalog, machine: Machine, tuner: TunerPlan) -> ReferencePlan:
    rlhf = args[Rlhf]
    possible = not list(the_reference_can_be_asked_first(args, wanted=True))
    precompute = chosen(rlhf.precompute_ref_log_probs) if possible else False
    if rlhf.ref_model_id_or_path or rlhf.ref_model_type:
        return ReferencePlan(kind="model", model=_named_model(args, catalog, machine), precompute=precompute)
    if rlhf.ref_model_revision:
        raise SwiftError(
            "--ref_model_revision belongs to a model that is not named",
            where="--ref_model_revision",
            next="add --ref_model_id_or_path",
        )
    if tuner.sft_type == "full":
        return ReferencePlan(kind="model", precompute=precompute)
    fresh = not (args[Train].resume_from_checkpoint and args[Train].resume_only_model)
    kind: ReferenceKind = "adapter off" if fresh and starts_as_the_base(tuner) else "start"
    return ReferencePlan(kind=kind, precompute=precompute)


def _named_model(args: Args, catalog: Catalog, machine: Machine) -> ModelPlan:
    rlhf = args[Rlhf]
    named = args.with_values(
        model_type=rlhf.ref_model_type,
        model_id_or_path=rlhf.ref_model_id_or_path,
        model_revision=rlhf.ref_model_revision,
    )
    try:
        return plan_model(named, catalog, machine, of_hub=("ref_model_revision",))
    except SwiftError as error:
        raise SwiftError(
            f"the reference model: {error.what}",
            where="--ref_model_id_or_path" if rlhf.ref_model_id_or_path else "--ref_model_type",
            why=error.why,
            next="name a whole model (swift merge-lora makes one of an adapter)",
        ) from error
