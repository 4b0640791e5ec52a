"""The score of an answer by a reward model: the head's number for the hidden state of its last token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor

from swift import models, tuners
from swift.models.value_head import load_head
from swift.plan.model import ModelPlan
from swift.training.objectives.answer_log_probs import model_inputs
from swift.training.output_head import OutputHead
from swift.training.policy_gradient.rollouts import Rollout
from swift.training.policy_gradient.shares import gathered, share
from swift.training.preference_batches import answers
from swift.training.varlen_attention import keep_inside_sequences


class RewardModel:
    """A model with a value head, or a sequence classifier of one label; `pad_id` fills rows where it needs rows."""

    def __init__(self, plan: ModelPlan, pad_id: int):
        base = models.fetch(plan)
        model = models.load_model(plan, base)
        if plan.adapter is not None:
            models.check_base(Path(plan.adapter), plan, base)
            tuners.load(model, Path(plan.adapter))  # its layers stand inside of the model
        self._model = model.eval().requires_grad_(False)
        self._head = load_head(model, base if plan.adapter is None else Path(plan.adapter))
        self._flat, self._pad_id = keep_inside_sequences(model), pad_id
        self._output = OutputHead(model)

    @torch.no_grad()
    def scores(self, given: Sequence[Rollout], size: int) -> Tensor:
        """(R) of answers, fp32 on the CPU; `size` of them are in a forward pass."""
        mine = share(given)
        parts = [self._scores(mine[start : start + size]).tolist() for start in range(0, len(mine), size)]
        return torch.tensor(gathered([score for part in parts for score in part]))

    def _scores(self, given: Sequence[Rollout]) -> Tensor:
        batch: Any = answers([one.item for one in given], self._flat, self._pad_id)
        batch = send_to_device(batch, self._model.device)
        hidden = self._output.hidden(self._model, model_inputs(batch))
        return self._head(hidden.reshape(-1, hidden.shape[-1])[batch["last"]])
