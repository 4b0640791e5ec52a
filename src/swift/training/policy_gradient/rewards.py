"""The rewards of answers: of functions and of a reward model, and their weighted sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from swift.catalog.rewards import OFFERED, load_rewards
from swift.core.errors import SwiftError
from swift.plan.grpo import GrpoPlan
from swift.training.objectives import Setting
from swift.training.policy_gradient.reward_model import RewardModel
from swift.training.policy_gradient.rollouts import Rollout
from swift.training.policy_gradient.schedule import Schedule
from swift.training.policy_gradient.shares import is_first
from swift.training.process_group import told_by_first


class Rewards:
    """All rewards of a run."""

    def __init__(self, setting: Setting, plan: GrpoPlan):
        self._setting, self._plan = setting, plan
        self._schedule: Schedule = setting.rows
        self._functions = load_rewards(plan.functions, plan.plugins)
        self._reward_model: RewardModel | None = None
        if plan.reward_model is not None:
            self._reward_model = RewardModel(setting, plan.reward_model)

    def __call__(self, answered: list[Rollout]) -> list[Rollout]:
        """The answers with their rewards and the sum of these as their score. Raises SwiftError for an answer that no
        function judges."""
        columns = told_by_first(self._by_functions(answered) if is_first() else [])
        if self._reward_model is not None:
            columns.append(self._reward_model.scores(answered, self._plan.answers.forward_rows).tolist())
        names, weights = self._plan.reward_names, self._plan.weights
        result = []
        for one, values in zip(answered, zip(*columns, strict=True), strict=True):
            if all(value is None for value in values):
                raise SwiftError(
                    "no reward function judges an answer",
                    where=one.origin,
                    why=f"{', '.join(names)} gave None",
                    next="give a number to each answer by one function at least, or leave the row out",
                )
            score = sum(weight * value for weight, value in zip(weights, values, strict=True) if value is not None)
            result.append(replace(one, rewards=dict(zip(names, values, strict=True)), score=float(score)))
        return result

    def _by_functions(self, answered: Sequence[Rollout]) -> list[list[float | None]]:
        """In one process: what the functions do is done once, and a mistake of theirs is told of."""
        known, origins = self._known(answered), [one.origin for one in answered]
        return [function(known, origins) for function in self._functions]

    def _known(self, answered: Sequence[Rollout]) -> dict[str, Any]:
        """What functions may ask for, a list of each."""
        tokenizer, prompts = self._setting.encoder.tokens.tokenizer, self._schedule.prompts
        rows = [prompts.fields(one.row) for one in answered]
        columns = dict.fromkeys(name for row in rows for name in row if name not in OFFERED)
        return {
            **{name: [row.get(name) for row in rows] for name in columns},
            "completions": [one.text for one in answered],
            "prompts": [str(tokenizer.decode(one.prompt_ids)) for one in answered],
            "token_ids": [list(one.answer_ids) for one in answered],
            "ended": [one.ended for one in answered],
            "max_completion_length": self._plan.answers.max_new_tokens,
            "soft_cache_length": self._plan.soft_cache_length,
        }
