"""Supervised fine-tuning and pre-training: cross-entropy at the labels, and nothing computed where there is none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from swift.training.chunked_cross_entropy import linear_cross_entropy
from swift.training.flash_varlen import borders
from swift.training.objectives import Batch, Objective, Setting, Sums
from swift.training.objectives.divisors import DIVISORS, Divisor, at_targets
from swift.training.output_head import OutputHead

NOT_FOR_THE_MODEL = ("labels", "loss_scale", "predicted_at", "rows", "items", "tokens")


def build(setting: Setting) -> SftObjective:
    """The objective of `swift sft` and `swift pt`."""
    train = setting.plan.train.group
    divisor = DIVISORS[train.loss_name]()
    if setting.continued is not None:
        divisor.load(setting.continued)
    return SftObjective(setting.base, train.acc_strategy, train.acc_steps, divisor)


class SftObjective(Objective):
    """Token-normalised cross-entropy with per-token weights, and token or sentence accuracy.

    The model's own forward runs up to its head, in which the hidden states at the labels go through
    `linear_cross_entropy`. Where the head is more than a linear layer (logits that are capped or scaled, a LoRA on
    the head), which is measured once, the model makes the logits itself.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        accuracy: Literal["token", "sentence"] = "token",
        acc_steps: int = 1,
        divisor: Divisor | None = None,
    ):
        self.accuracy = accuracy
        self.acc_steps = acc_steps
        self._divisor = divisor or Divisor()
        self._steps = 0
        self._head = OutputHead(model)

    def denominator(self, batch: Batch) -> Tensor:
        """The share of a batch in what the summed loss is divided by: see `Divisor`."""
        return self._divisor.share(batch)

    def begin_step(self, model: nn.Module, batches: Iterable[Batch]) -> None:
        """Count the step: every `acc_steps`-th has an accuracy."""
        self._steps += 1
        self._divisor.begin_step(batches)

    def save(self, folder: Path, weights: Any = None) -> None:
        """Write what the divisor has to remember."""
        self._divisor.save(folder)

    def sums(self, model: nn.Module, batch: Batch) -> Sums:
        """Sum of weight x cross-entropy over the targets of `batch`, and `acc`."""
        at, labels = batch["predicted_at"], at_targets(batch, "labels")
        weights = at_targets(batch, "loss_scale") if "loss_scale" in batch else None
        if self._head.plain:
            hits = torch.empty(0)

            def cross_entropies(hidden: Tensor, head: nn.Linear) -> Tensor:
                nonlocal hits
                at_labels = hidden.flatten(0, -2)[at]
                loss, hits = linear_cross_entropy(at_labels, head.weight, head.bias, labels, weights)
                return loss

            loss = self._head.compute(model, model_inputs(batch), cross_entropies)
        else:
            logits = model(**model_inputs(batch)).logits.flatten(0, -2)[at].float()
            nll = cross_entropy(logits, labels, reduction="none")
            loss = (nll if weights is None else nll * weights).sum()
            hits = logits.detach().argmax(-1) == labels
        if torch.is_grad_enabled() and self._steps % self.acc_steps:
            return Sums(loss)
        return Sums(loss, {"acc": self._accuracy(hits, batch)})

    def _accuracy(self, hits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Tokens, or whole sequences, that were predicted, and all of them. Nothing here waits for a GPU."""
        if self.accuracy == "token":
            right = hits.sum().float()
            return right, torch.full_like(right, hits.numel())
        at, labels = batch["predicted_at"], batch["labels"]
        if "sequence_lengths" in batch:
            ends = borders(tuple(batch["sequence_lengths"]), at.device)[1:]
            sequence, count = torch.searchsorted(ends, at.to(ends.dtype), right=True), len(ends)
        else:
            sequence, count = at // labels.shape[1], len(labels)
        tokens = torch.zeros(count, device=at.device).index_add_(0, sequence, torch.ones_like(at, dtype=torch.float))
        rights = torch.zeros_like(tokens).index_add_(0, sequence, hits.float())
        trained = tokens > 0
        return (trained & (rights == tokens)).sum().float(), trained.sum().float()


def model_inputs(batch: Batch) -> dict[str, Any]:
    """The model's keywords. A flattened batch says where its sequences end; a padded one has its attention mask."""
    return {**{k: v for k, v in batch.items() if k not in NOT_FOR_THE_MODEL}, "use_cache": False}
