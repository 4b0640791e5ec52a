"""The score of an answer by a reward model: the head's number for the hidden state of its last token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from swift import models, tuners
from swift.models.value_head import load_head
from swift.plan.model import ModelPlan
from swift.training.media_inputs import MediaInputs
from swift.training.objectives import Setting
from swift.training.objectives.answer_log_probs import model_inputs
from swift.training.output_head import OutputHead
from swift.training.policy_gradient.answer_batches import batch_of
from swift.training.policy_gradient.rollouts import Rollout
from swift.training.policy_gradient.shares import gathered, share


class RewardModel:
    """A model with a value head, or a sequence classifier of one label. It sees what the prompts show."""

    def __init__(self, setting: Setting, plan: ModelPlan):
        base = models.fetch(plan)
        model = models.load_model(plan, base)
        if plan.adapter is not None:
            models.check_base(Path(plan.adapter), plan, base)
            tuners.load(model, Path(plan.adapter))  # its layers stand inside of the model
        self._setting, self._model = setting, model.eval().requires_grad_(False)
        self._head = load_head(model, base if plan.adapter is None else Path(plan.adapter))
        self._flat = setting.keep_inside(model)
        self._media = None if setting.images is None else MediaInputs(setting.images, model)
        self._output = OutputHead(model)

    @torch.no_grad()
    def scores(self, given: Sequence[Rollout], size: int) -> Tensor:
        """(R) of answers, fp32 on the CPU; `size` of them are in a forward pass."""
        mine = share(given)
        parts = [self._scores(mine[start : start + size]).tolist() for start in range(0, len(mine), size)]
        return torch.tensor(gathered([score for part in parts for score in part]))

    def _scores(self, given: Sequence[Rollout]) -> Tensor:
        batch = batch_of(self._setting, given, self._model, self._flat, self._media)
        hidden = self._output.hidden(self._model, model_inputs(batch))
        return self._head(hidden.reshape(-1, hidden.shape[-1])[batch["last"]])
