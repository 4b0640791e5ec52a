"""Kahneman-Tversky optimization (arXiv 2402.01306): single answers, each labelled as desirable or not."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from swift.core.log import log, once
from swift.data.stream import StreamDataset
from swift.plan.rlhf import LossPlan
from swift.training.objectives import Batch, Objective, Setting, Sums
from swift.training.objectives.answer_log_probs import AnswerLogProbs, token_counts
from swift.training.objectives.preference import check_start
from swift.training.objectives.reference import Reference, build_reference, evaluating, starts_equal


def kto(ratio: Tensor, desirable: Tensor, kl: Tensor, plan: LossPlan) -> Tensor:
    """Losses (A) of answers with log(policy / reference) `ratio` (A); `desirable` (A) is bool, `kl` a scalar.

    `kto`: equations 7 and 8 of the paper with weights lambda_D and lambda_U. `apo_zero_unpaired`: APO-zero (arXiv
    2408.06266, equation 7) without pairs, which is KTO without a KL.
    """
    sign = torch.where(desirable, 1.0, -1.0)
    weight = torch.where(desirable, plan.desirable_weight, plan.undesirable_weight)
    shift = kl if plan.loss_type == "kto" else torch.zeros_like(kl)
    return weight * torch.sigmoid(-plan.beta * sign * (ratio - shift))


def build(setting: Setting) -> Objective:
    """The objective of `--rlhf_type kto`."""
    plan = setting.plan.alignment
    assert plan is not None and plan.reference is not None
    answers = AnswerLogProbs(setting.base)
    say_balance(setting.rows, plan.loss)
    if plan.loss.loss_type == "kto":
        once(f"kto estimates its KL from the {setting.plan.train.batch_size} rows of a micro-batch")
    return KtoObjective(
        plan.loss,
        answers,
        build_reference(setting, plan.reference, answers),
        starts_equal=starts_equal(setting, plan.reference),
        together=setting.plan.train.shards_weights,
    )


class KtoObjective(Objective):
    """Mean of the losses over the rows of a step. The KL is that of the micro-batch, from 0 up, without gradient."""

    def __init__(
        self,
        plan: LossPlan,
        answers: AnswerLogProbs,
        reference: Reference,
        *,
        starts_equal: bool = False,
        together: bool = False,
    ):
        """`together`: no process computes without the others, which may have a KL where this one has none."""
        self._plan, self._answers, self._reference = plan, answers, reference
        self._unchecked, self._together = starts_equal, together

    def denominator(self, batch: Batch) -> Tensor:
        """The rows."""
        return torch.tensor(float(batch["answers"]))

    def sums(self, model: nn.Module, batch: Batch) -> Sums:
        """The sum of the losses, and the metrics of 2.5 by their names."""
        reference = self._reference.sums(batch)
        kl = self._kl(model, batch)
        scores = self._answers(model, batch)
        log_probs, desirable = scores.sums(), batch["desirable"]
        ratio = log_probs - reference
        if self._unchecked and torch.is_grad_enabled():
            self._unchecked = False
            check_start(ratio.detach() / token_counts(batch))
        metrics: dict[str, tuple[Tensor, Tensor]] = {}
        with torch.no_grad():
            for name, mine in (("chosen", desirable), ("rejected", ~desirable)):
                metrics[f"rewards/{name}"] = (self._plan.beta * ratio[mine]).sum(), mine.sum()
                metrics[f"logps/{name}"] = log_probs[mine].sum(), mine.sum()
                metrics[f"logits/{name}"] = scores.mean_logits_of(mine)
        if "kl" in batch:
            rows = kl.new_tensor(float(batch["answers"]))
            metrics["kl"] = kl * rows, rows
            metrics["kl_rows"] = rows, torch.ones_like(rows)
        return Sums(kto(ratio, desirable, kl, self._plan).sum(), metrics)

    def derived(self, metrics: dict[str, float]) -> dict[str, float]:
        """The margin between the mean rewards of both kinds, where both were seen."""
        if not metrics.keys() >= {"rewards/chosen", "rewards/rejected"}:
            return metrics
        return {**metrics, "rewards/margins": metrics["rewards/chosen"] - metrics["rewards/rejected"]}

    def save(self, folder: Any, weights: Any = None) -> None:
        """The reference, where it lies in the checkpoint."""
        self._reference.save(folder)

    @torch.no_grad()
    def _kl(self, model: nn.Module, batch: Batch) -> Tensor:
        """How far the policy is from the reference, on answers that do not belong to their prompts."""
        if "kl" in batch:
            return self._distance(model, batch["kl"])
        if self._plan.loss_type == "kto":
            if batch["items"]:
                once(
                    "a micro-batch of one row has no KL: it is taken as 0 there (--dataloader_drop_last true skips it)"
                )
            if self._together:
                self._distance(model, batch)
        return torch.zeros((), device=batch["input_ids"].device)

    def _distance(self, model: nn.Module, batch: Batch) -> Tensor:
        reference = self._reference.sums(batch)
        with evaluating(model):
            policy = self._answers(model, batch).sums()
        return (policy - reference).mean().clamp(min=0)


def say_balance(rows: Any, plan: LossPlan) -> None:
    """How many rows are desirable, and which weights the paper advises for that (section 4.2: a ratio of 1 to 4/3)."""
    if isinstance(rows, StreamDataset):
        return
    labels = rows.labels
    good, bad = int(np.count_nonzero(labels)), int(np.count_nonzero(~labels))
    log.info("kto: %d desirable and %d undesirable rows", good, bad)
    if not good or not bad:
        log.warning("kto: all rows have the same label; the loss has nothing to weigh them against")
        return
    ratio = plan.desirable_weight * good / (plan.undesirable_weight * bad)
    low, high = plan.undesirable_weight * bad / good, plan.desirable_weight * good / bad
    log.log(
        logging.INFO if 0.99 <= ratio <= 1.34 else logging.WARNING,
        "kto: desirable_weight x desirable : undesirable_weight x undesirable is %.2f; 1 to 1.33 is advised, that is "
        "--desirable_weight %.2f to %.2f, or --undesirable_weight %.2f to %.2f",
        *(ratio, low, low * 4 / 3, high * 3 / 4, high),
    )
