"""Reward models: a score for an answer, trained so that the better of two has the higher one (Bradley-Terry)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from swift.models.value_head import NAME, ValueHead, read_head, save_head
from swift.training.objectives import Batch, Objective, Setting, Sums
from swift.training.objectives.answer_log_probs import ENDED_HERE, model_inputs
from swift.training.output_head import OutputHead


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log sigmoid of the difference of the scores, (P) each (arXiv 2203.02155, equation 1)."""
    return -logsigmoid(chosen - rejected)


def build(setting: Setting) -> Objective:
    """The objective of `--rlhf_type rm`: a value head is put on the model, read from where the weights come from."""
    head = ValueHead(setting.base.config.get_text_config().hidden_size).to(setting.base.device)
    for folder in (setting.resume, setting.source):
        if folder is not None and read_head(head, folder):
            break
    setting.model.add_module(NAME, head)
    return RewardObjective(OutputHead(setting.base), head)


class RewardObjective(Objective):
    """Mean over the pairs of a step, each answer scored at its last token."""

    added = NAME

    def __init__(self, output: OutputHead, head: ValueHead):
        self._output, self._head = output, head

    def denominator(self, batch: Batch) -> Tensor:
        """The pairs."""
        return torch.tensor(batch["answers"] / 2)

    def sums(self, model: nn.Module, batch: Batch) -> Sums:
        """The sum of the losses, the scores, and how often the better answer has the higher one."""

        def work(hidden: Tensor) -> Tensor:
            return self._head(hidden.reshape(-1, hidden.shape[-1])[batch["last"]])

        scores = self._output.instead_of_logits(model, model_inputs(batch), work)
        if ENDED_HERE in batch:
            mine = scores.new_zeros(batch["answers"]).index_add_(0, batch[ENDED_HERE], scores)
            scores = batch["sequence_group"].sum(mine)
        chosen, rejected = scores[0::2], scores[1::2]
        with torch.no_grad():
            values = {
                "accuracy": (chosen > rejected).float(),
                "rewards/chosen": chosen,
                "rewards/rejected": rejected,
                "rewards/margins": chosen - rejected,
            }
            count = chosen.new_tensor(float(chosen.numel()))
            metrics = {name: (value.sum(), count) for name, value in values.items()}
        return Sums(bradley_terry(chosen, rejected).sum(), metrics)

    def save(self, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """`value_head.safetensors`."""
        save_head(self._head, folder, weights=weights)
