"""Supervised fine-tuning and pre-training: cross-entropy at the labels, and nothing computed where there is none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from swift.prompts.types import IGNORED
from swift.training.chunked_cross_entropy import linear_cross_entropy
from swift.training.objectives import Batch, Objective, Setting, Sums
from swift.training.output_head import OutputHead

NOT_FOR_THE_MODEL = ("labels", "loss_scale", "rows", "items")


def build(setting: Setting) -> SftObjective:
    """The objective of `swift sft` and `swift pt`."""
    train = setting.plan.train.group
    return SftObjective(setting.base, train.acc_strategy, train.acc_steps)


class SftObjective(Objective):
    """Token-normalised cross-entropy with per-token weights, and token or sentence accuracy.

    The model's own forward runs up to its head; there the hidden states at the labels are taken and go through
    `linear_cross_entropy`. Where the head is more than a linear layer (logits that are capped or scaled, a LoRA on
    the head), which is measured once, the model makes the logits itself.
    """

    def __init__(self, model: PreTrainedModel, accuracy: Literal["token", "sentence"] = "token", acc_steps: int = 1):
        self.accuracy = accuracy
        self.acc_steps = acc_steps
        self._steps = 0
        self._head = OutputHead(model)

    def denominator(self, batch: Batch) -> Tensor:
        """Sum of the weights of all targets (their number where no weights are given)."""
        targets = _targets(batch)
        if "loss_scale" not in batch:
            return targets.sum().float()
        return batch["loss_scale"][..., 1:][targets].float().sum()

    def begin_step(self, model: nn.Module, batches: Iterable[Batch]) -> None:
        """Count the step: every `acc_steps`-th has an accuracy."""
        self._steps += 1

    def sums(self, model: nn.Module, batch: Batch) -> Sums:
        """Sum of weight x cross-entropy over the targets of `batch`, and `acc`."""
        targets = _targets(batch)
        labels = batch["labels"][..., 1:][targets]
        weights = batch["loss_scale"][..., 1:][targets] if "loss_scale" in batch else None
        if self._head.linear is not None:
            linear = self._head.linear
            hidden = self._head.hidden(model, _inputs(batch))[..., :-1, :][targets]
            loss, hits = linear_cross_entropy(hidden, linear.weight, linear.bias, labels, weights)
        else:
            logits = model(**_inputs(batch)).logits[..., :-1, :][targets].float()
            nll = cross_entropy(logits, labels, reduction="none")
            loss = (nll if weights is None else nll * weights).sum()
            hits = logits.detach().argmax(-1) == labels
        if torch.is_grad_enabled() and self._steps % self.acc_steps:
            return Sums(loss)
        return Sums(loss, {"acc": self._accuracy(hits, targets, batch)})

    def _accuracy(self, hits: Tensor, targets: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.accuracy == "token":
            return hits.sum().float(), targets.sum().float()
        if "position_ids" in batch:
            sentence = (batch["position_ids"] == 0).cumsum(-1)[..., 1:]
        else:
            sentence = torch.arange(1, targets.shape[0] + 1, device=targets.device)[:, None].expand_as(targets)
        wrong, trained = sentence[targets][~hits].unique(), sentence[targets].unique()
        return torch.tensor(float(trained.numel() - wrong.numel())), torch.tensor(float(trained.numel()))


def _targets(batch: Batch) -> Tensor:
    """(B, T-1) bool: where a label is predicted from the token before it in the same sequence."""
    targets = batch["labels"][..., 1:] != IGNORED
    if "position_ids" in batch:
        targets = targets & (batch["position_ids"][..., 1:] != 0)
    return targets


def _inputs(batch: Batch) -> dict[str, Any]:
    """The model's keywords. A flattened batch says where its sequences end; a padded one has its attention mask."""
    return {**{k: v for k, v in batch.items() if k not in NOT_FOR_THE_MODEL}, "use_cache": False}
