"""Proximal policy optimization (arXiv 1707.06347): the model answers prompts, and learns which answers score high.

A roll-out is made where its first optimizer step begins, from the weights of that moment; the steps on it read it from
memory. All that it depends on is the weights, the seed and its number, so a checkpoint needs to hold the roll-out under
way and the critic's head, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from swift.models.value_head import CRITIC, NAME, ValueHead, read_head, save_head
from swift.plan.roll_outs import PpoPlan
from swift.training.objectives import Batch, Objective, Setting, Sums
from swift.training.objectives.reference import evaluating
from swift.training.policy_gradient import algebra
from swift.training.policy_gradient.policy import Policy
from swift.training.policy_gradient.reward_model import RewardModel
from swift.training.policy_gradient.rollouts import Record, Rollout
from swift.training.policy_gradient.schedule import Schedule

PER_TOKEN = ("log_probs", "ref_log_probs", "values", "advantages", "returns")


def build(setting: Setting) -> Objective:
    """The objective of `--rlhf_type ppo`: a critic's head is put on the model, the reward model is loaded."""
    assert setting.plan.alignment is not None and setting.plan.alignment.ppo is not None
    plan = setting.plan.alignment.ppo
    head = ValueHead(setting.base.config.get_text_config().hidden_size).to(setting.base.device)
    nn.init.zeros_(head.summary.weight)
    nn.init.zeros_(head.summary.bias)
    if setting.resume is not None:
        read_head(head, setting.resume, (CRITIC,))
    objective = PpoObjective(setting, plan, head, RewardModel(setting, plan.reward_model))
    setting.model.add_module(NAME, head)
    return objective


class PpoObjective(Objective):
    """Clipped policy and value losses, a mean over the answer tokens of an optimizer step."""

    added = NAME

    def __init__(self, setting: Setting, plan: PpoPlan, head: ValueHead, reward_model: RewardModel):
        assert setting.plan.alignment is not None and setting.plan.alignment.reference is not None
        self._setting, self._plan, self._head, self._reward_model = setting, plan, head, reward_model
        self._schedule: Schedule = setting.rows
        self._policy = Policy(setting, plan.answers, setting.plan.alignment.reference)
        self._record = Record(setting)

    def begin_step(self, model: nn.Module, batches: Iterable[Batch]) -> None:
        """Make the roll-out that the step trains on, where it is not the last one."""
        self._record.begin(next(iter(batches))["roll_out"], self._roll_out)

    def denominator(self, batch: Batch) -> Tensor:
        """The tokens of the answers."""
        return torch.tensor(float(sum(len(one.answer_ids) for one in self._record.of(batch))))

    def sums(self, model: nn.Module, batch: Batch) -> Sums:
        """The summed losses over the tokens of the batch's answers, and what is known of them."""
        given, flat = self._record.of(batch), self._policy.flat
        batch.update(self._policy.batch(given))
        scores = self._policy.scores(model, batch, critic=self._head)
        values, log_probs = scores.values, scores.log_probs
        assert values is not None
        old = {name: flat(given, name) for name in ("log_probs", "values", "advantages", "returns")}
        plan = self._plan
        policy, held = algebra.policy_losses(log_probs, old["log_probs"], old["advantages"], plan.cliprange)
        value, near = algebra.value_losses(values, old["values"], old["returns"], plan.cliprange_value)
        with torch.no_grad():
            difference = log_probs - old["log_probs"]
            ratio = difference.exp()
            tokens = {
                "policy/approxkl_avg": 0.5 * difference.square(),
                "policy/clipfrac_avg": held.float(),
                "loss/policy_avg": policy,
                "loss/value_avg": value,
                "val/clipfrac_avg": near.float(),
                "val/ratio": ratio,
                "val/ratio_square": ratio.square(),
            }
            count = ratio.new_tensor(float(ratio.numel()))
            metrics = {name: (value.sum(), count) for name, value in tokens.items()}
        return Sums((policy + plan.vf_coef * value).sum(), {**metrics, **self._of_answers(given)})

    def derived(self, metrics: dict[str, float]) -> dict[str, float]:
        """With the variance of the ratio."""
        square = metrics.pop("val/ratio_square")
        return {**metrics, "val/ratio_var": max(0.0, square - metrics["val/ratio"] ** 2)}

    def save(self, folder: Path, weights: Any = None) -> None:
        """The critic's head, the roll-out under way, and what the reference needs."""
        save_head(self._head, folder, CRITIC)
        self._record.save(folder)
        assert self._policy.reference is not None
        self._policy.reference.save(folder)

    def _of_answers(self, given: Sequence[Rollout]) -> dict[str, tuple[Tensor, Tensor]]:
        """Metrics of answers, each summed over its tokens and a mean over answers, under the names of 2.5."""
        count = torch.tensor(float(len(given)))
        kl = torch.tensor([sum(one.log_probs) - sum(one.ref_log_probs) for one in given])
        score = torch.tensor([one.score for one in given])
        rows = {
            "objective/kl": kl,
            "objective/entropy": torch.tensor([-sum(one.log_probs) for one in given]),
            "objective/non_score_reward": -self._plan.kl_coef * kl,
            "objective/rlhf_reward": score - self._plan.kl_coef * kl,
            "objective/scores": score,
            "val/ended": torch.tensor([float(one.ended) for one in given]),
            "val/answer_tokens": torch.tensor([float(len(one.answer_ids)) for one in given]),
        }
        return {name: (value.sum(), count) for name, value in rows.items()}

    # A roll-out.

    @torch.no_grad()
    def _roll_out(self, number: int) -> list[Rollout]:
        places = range(self._schedule.size)
        with evaluating(self._setting.model):
            rows = [self._schedule.row(number, place) for place in places]
            sampled = self._policy.answer(number, rows, places=places)
            values = self._policy.measured(sampled, self._head)
            values["score"] = self._reward_model.scores(sampled, self._policy.size)
        return self._with_advantages(sampled, values)

    def _with_advantages(self, sampled: list[Rollout], values: dict[str, Tensor]) -> list[Rollout]:
        plan = self._plan
        lengths = [len(one.answer_ids) for one in sampled]
        known = [name for name in PER_TOKEN if name in values]
        per_token = {name: pad_sequence(list(torch.split(values[name], lengths)), True) for name in known}
        mask = pad_sequence([torch.ones(length) for length in lengths], True)
        ended = torch.tensor([one.ended for one in sampled])
        score = values["score"] - plan.missing_eos_penalty * (~ended).float()
        rewards = algebra.shaped_rewards(per_token["log_probs"], per_token["ref_log_probs"], score, mask, plan.kl_coef)
        if plan.whiten_rewards:
            rewards = algebra.whiten(rewards, mask, keep_mean=True)
        advantages, returns = algebra.advantages(rewards, per_token["values"], mask, gamma=plan.gamma, lam=plan.lam)
        per_token = {**per_token, "advantages": algebra.whiten(advantages, mask), "returns": returns}
        return [
            replace(
                one,
                score=score[number].item(),
                **{name: rows[number, : lengths[number]].tolist() for name, rows in per_token.items()},
            )
            for number, one in enumerate(sampled)
        ]
