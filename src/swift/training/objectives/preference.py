"""Losses over pairs of answers: the forward pass, the means over the step, the metrics. The algebra is the method's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from swift.core.errors import CheckFailed
from swift.core.log import log, once
from swift.params.alignment import DEPENDS_ON_MICRO_BATCH
from swift.plan.rlhf import LossPlan
from swift.training.objectives import Batch, Objective, Setting, Sums
from swift.training.objectives.answer_log_probs import AnswerLogProbs, TokenScores, token_counts
from swift.training.objectives.pairs import Method, Pairs, Terms
from swift.training.objectives.reference import Reference, build_reference, evaluating, starts_equal

SHIFT_FILE = "running_reward.json"


def build_pairs(setting: Setting, method: Method) -> PairObjective:
    """The objective of a method over pairs, with the reference that the plan asks for."""
    plan = setting.plan.alignment
    assert plan is not None
    answers = AnswerLogProbs(setting.base)
    reference, equal = None, False
    if plan.reference is not None:
        reference = build_reference(setting, plan.reference, answers)
        equal = starts_equal(setting, plan.reference)
    return PairObjective(
        method,
        plan.loss,
        answers,
        reference,
        starts_equal=equal,
        resume=setting.continued,
    )


class PairObjective(Objective):
    """Mean of a preference loss over the pairs of a step, plus a weight times the mean nll of the chosen tokens."""

    def __init__(
        self,
        method: Method,
        plan: LossPlan,
        answers: AnswerLogProbs,
        reference: Reference | None,
        *,
        starts_equal: bool = False,
        resume: Path | None = None,
    ):
        self._method, self._plan, self._answers, self._reference = method, plan, answers, reference
        self._unchecked = starts_equal
        self._shift = RunningMean.load(resume) if plan.loss_type == "bco_pair" else None
        if plan.loss_type in DEPENDS_ON_MICRO_BATCH:
            once(f"the loss {plan.loss_type} sorts the rows of a micro-batch: it depends on --batch_size")

    def denominator(self, batch: Batch) -> Tensor:
        """(2): the pairs, and the trained tokens of the chosen answers."""
        return torch.stack([torch.tensor(batch["answers"] / 2), token_counts(batch)[0::2].sum()])

    def begin_step(self, model: nn.Module, batches: Iterable[Batch]) -> None:
        """Bring the running mean of rewards up to the rows of the step, for the loss that shifts by it."""
        if self._shift is None:
            return
        total = torch.zeros(2)
        with torch.no_grad(), evaluating(model):
            for batch in batches:
                pairs, _ = self._pairs(model, batch)
                rewards = self._plan.beta * torch.cat([pairs.chosen_ratio, pairs.rejected_ratio])
                sums = torch.stack([rewards.sum(), torch.ones_like(rewards).sum()])
                total = total.to(rewards.device) + sums * bool(batch["items"])
        if dist.is_initialized():
            dist.all_reduce(total)
        self._shift.add(*total.tolist())

    def sums(self, model: nn.Module, batch: Batch) -> Sums:
        """Sums of the two terms, and the metrics of 2.5 by their names."""
        pairs, scores = self._pairs(model, batch)
        if self._unchecked and torch.is_grad_enabled():
            self._check_start(pairs)
        shift = 0.0 if self._shift is None else self._shift.mean
        terms = self._method(pairs, self._plan, pairs.chosen.new_tensor(shift))
        nll = -pairs.chosen.sum()
        loss = torch.stack([terms.losses.sum(), self._plan.nll_weight * nll])
        return Sums(loss, {**self._metrics(pairs, terms, scores), "nll_loss": (nll, pairs.chosen_tokens.sum())})

    def save(self, folder: Path, weights: Any = None) -> None:
        """The reference, where it lies in the checkpoint, and the running mean."""
        if self._reference is not None:
            self._reference.save(folder)
        if self._shift is not None:
            self._shift.save(folder)

    def go_on_from(self, checkpoint: Path | None) -> None:
        """The running mean of rewards as it was then."""
        if self._shift is not None:
            self._shift = RunningMean.load(checkpoint)

    def _pairs(self, model: nn.Module, batch: Batch) -> tuple[Pairs, TokenScores]:
        # The reference goes first: switching an adapter off and on between forward and backward would be seen there.
        reference = None if self._reference is None else self._reference.sums(batch)
        scores = self._answers(model, batch)
        sums, counts = scores.sums(), token_counts(batch)
        pairs = Pairs(
            chosen=sums[0::2],
            rejected=sums[1::2],
            chosen_tokens=counts[0::2],
            rejected_tokens=counts[1::2],
            reference_chosen=None if reference is None else reference[0::2],
            reference_rejected=None if reference is None else reference[1::2],
        )
        return pairs, scores

    @torch.no_grad()
    def _metrics(self, pairs: Pairs, terms: Terms, scores: TokenScores) -> dict[str, tuple[Tensor, Tensor]]:
        chosen, rejected = terms.chosen_rewards, terms.rejected_rewards
        shown = pairs.per_token() if terms.per_token else pairs
        number = torch.arange(scores.batch["answers"], device=chosen.device)
        values = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/accuracies": (chosen > rejected).float(),
            "rewards/margins": chosen - rejected,
            "logps/rejected": shown.rejected,
            "logps/chosen": shown.chosen,
            **terms.extra,
        }
        count = chosen.new_tensor(float(chosen.numel()))
        return {
            **{name: (value.sum(), count) for name, value in values.items()},
            "logits/rejected": scores.mean_logits_of(number % 2 == 1),
            "logits/chosen": scores.mean_logits_of(number % 2 == 0),
        }

    @torch.no_grad()
    def _check_start(self, pairs: Pairs) -> None:
        """Where policy and reference are the same model, every reward is 0 and the loss is known."""
        self._unchecked = False
        ratios = torch.cat([pairs.chosen_ratio / pairs.chosen_tokens, pairs.rejected_ratio / pairs.rejected_tokens])
        check_start(ratios)
        known = self._method(_without_difference(pairs), self._plan, pairs.chosen.new_zeros(()))
        log.info("step 0: every reward is 0, the preference loss is %.6f as it must be", known.losses.mean().item())


def check_start(ratios: Tensor) -> None:
    """Raise CheckFailed when log(policy / reference) per token is not 0 before the first step."""
    off = ratios.abs().max().item()
    precise = ratios.dtype == torch.float32 and not torch.is_autocast_enabled()
    if off > (1e-3 if precise else 0.05):
        raise CheckFailed(
            f"before the first step the model is not its reference: log-probabilities differ by {off:.4g} a token",
            why="something random is on (dropout), or the reference is not what training starts from",
            next="name the reference you mean with --ref_model_id_or_path",
        )


def _without_difference(pairs: Pairs) -> Pairs:
    return Pairs(
        chosen=pairs.chosen,
        rejected=pairs.rejected,
        chosen_tokens=pairs.chosen_tokens,
        rejected_tokens=pairs.rejected_tokens,
        reference_chosen=pairs.chosen,
        reference_rejected=pairs.rejected,
    )


class RunningMean:
    """The mean of all rewards so far, every answer counting the same, whatever step and micro-batch it came in."""

    def __init__(self, total: float = 0.0, count: float = 0.0):
        self._total, self._count = total, count

    @property
    def mean(self) -> float:
        """0 before the first reward."""
        return self._total / self._count if self._count else 0.0

    def add(self, total: float, count: float) -> None:
        """Take in `count` rewards that add up to `total`."""
        self._total += total
        self._count += count

    def save(self, folder: Path) -> None:
        """Write it into a checkpoint."""
        (folder / SHIFT_FILE).write_text(json.dumps({"total": self._total, "count": self._count}))

    @classmethod
    def load(cls, folder: Path | None) -> RunningMean:
        """From the checkpoint that a run goes on from; a new one without."""
        if folder is None or not (folder / SHIFT_FILE).is_file():
            return cls()
        return cls(**json.loads((folder / SHIFT_FILE).read_text(encoding="utf-8")))
