"""Group relative policy optimization (DeepSeekMath, arXiv 2402.03300): answers to one prompt, compared with each other.

The loss is averaged as there, as in Dr. GRPO (arXiv 2503.20783) or as in DAPO (arXiv 2503.14476).

Roll-outs are made and kept as those of PPO are; there is no critic, and nothing else that a checkpoint would hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swift.core.log import log
from swift.plan.grpo import GrpoPlan
from swift.training.objectives import Batch, Objective, Setting, Sums
from swift.training.objectives.reference import evaluating
from swift.training.policy_gradient import algebra
from swift.training.policy_gradient.policy import Policy, per_answer
from swift.training.policy_gradient.rewards import Rewards
from swift.training.policy_gradient.rollouts import Record, Rollout
from swift.training.policy_gradient.schedule import Schedule


def build(setting: Setting) -> Objective:
    """The objective of `--rlhf_type grpo`; a reward model is loaded where there is one."""
    assert setting.plan.alignment is not None and setting.plan.alignment.grpo is not None
    plan = setting.plan.alignment.grpo
    return GrpoObjective(setting, plan, Rewards(setting, plan))


class GrpoObjective(Objective):
    """The clipped policy loss and the KL to the reference, averaged as `--loss_type` says over an optimizer step."""

    may_start_flat = True

    def __init__(self, setting: Setting, plan: GrpoPlan, rewards: Rewards):
        assert setting.plan.alignment is not None
        self._setting, self._plan, self._rewards = setting, plan, rewards
        self._schedule: Schedule = setting.rows
        self._policy = Policy(setting, plan.answers, setting.plan.alignment.reference)
        self._record = Record(setting)

    def begin_step(self, model: nn.Module, batches: Iterable[Batch]) -> None:
        """Make the roll-out that the step trains on, where it is not the last one."""
        self._record.begin(next(iter(batches))["roll_out"], self._roll_out)

    def denominator(self, batch: Batch) -> Tensor:
        """The trained answers, their tokens, or the most tokens that they could have had."""
        trained = [one for one in self._record.of(batch) if one.trained]
        if self._plan.loss_type == "dapo":
            return torch.tensor(float(sum(len(one.answer_ids) for one in trained)))
        each = {"grpo": 1, "dr_grpo": self._plan.answers.max_new_tokens}[self._plan.loss_type]
        return torch.tensor(float(len(trained) * each))

    def sums(self, model: nn.Module, batch: Batch) -> Sums:
        """The summed losses over the tokens of the batch's answers, and what is known of them."""
        plan, given, flat = self._plan, self._record.of(batch), self._policy.flat
        batch.update(self._policy.batch(given))
        log_probs = self._policy.scores(model, batch).log_probs
        old, advantage = flat(given, "log_probs"), flat(given, "advantages")
        losses, held = algebra.policy_losses(log_probs, old, advantage, plan.epsilon, plan.epsilon_high)
        of_tokens = {
            "clip_ratio/low_mean": (held & (advantage < 0)).float(),
            "clip_ratio/high_mean": (held & (advantage > 0)).float(),
            "clip_ratio/region_mean": held.float(),
            "ratio": (log_probs - old).detach().exp(),
        }
        if plan.beta:
            kl = algebra.kl_to_reference(log_probs, flat(given, "ref_log_probs"))
            losses = losses + plan.beta * kl
            of_tokens["kl"] = kl.detach()
        count = losses.new_tensor(float(losses.numel()))
        metrics = {name: (value.sum(), count) for name, value in of_tokens.items()}
        return Sums((losses * self._weights(given)).sum(), {**metrics, **self._of_answers(given)})

    def derived(self, metrics: dict[str, float]) -> dict[str, float]:
        """With the standard deviation of each reward instead of its mean square."""
        named = dict(metrics)
        for name in self._plan.reward_names:
            square = named.pop(f"rewards/{name}/square")
            named[f"rewards/{name}/std"] = max(0.0, square - named[f"rewards/{name}/mean"] ** 2) ** 0.5
        return named

    def save(self, folder: Path, weights: Any = None) -> None:
        """The roll-out under way, and what the reference needs."""
        self._record.save(folder)
        if self._policy.reference is not None:
            self._policy.reference.save(folder)

    def _weights(self, given: Sequence[Rollout]) -> Tensor:
        """(N) what a token's loss counts in the sum that is divided by `denominator`."""
        lengths = [len(one.answer_ids) for one in given]
        of_mean = self._plan.loss_type == "grpo"
        each = [one.trained / (size if of_mean else 1) for one, size in zip(given, lengths, strict=True)]
        weights = torch.tensor(each).repeat_interleave(torch.tensor(lengths))
        return weights.to(self._setting.base.device)

    def _of_answers(self, given: Sequence[Rollout]) -> dict[str, tuple[Tensor, Tensor]]:
        """Metrics of answers and groups, under the names of TRL and later ms-swift."""
        groups = torch.tensor([one.score for one in self._record.current]).view(-1, self._plan.generations)
        spread, flat = groups.std(1), algebra.equal(groups).float()
        mine = torch.tensor([one.place // self._plan.generations for one in given])
        count = torch.tensor(float(len(given)))
        lengths = torch.tensor([float(len(one.answer_ids)) for one in given])
        answers = {
            "reward": torch.tensor([one.score for one in given]),
            "reward_std": spread[mine],
            "frac_reward_zero_std": flat[mine],
            "completions/mean_length": lengths,
            "completions/clipped_ratio": torch.tensor([float(not one.ended) for one in given]),
            "completions/trained_ratio": torch.tensor([float(one.trained) for one in given]),
        }
        metrics = {name: (value.sum(), count) for name, value in answers.items()}
        for name in self._plan.reward_names:
            judged = [one.rewards[name] for one in given]
            values = torch.tensor([value for value in judged if value is not None])
            many = torch.tensor(float(len(values)))
            metrics[f"rewards/{name}/mean"] = values.sum(), many
            metrics[f"rewards/{name}/square"] = values.square().sum(), many
        return metrics

    # A roll-out.

    @torch.no_grad()
    def _roll_out(self, number: int) -> list[Rollout]:
        plan, schedule = self._plan, self._schedule
        places = range(schedule.size)
        with evaluating(self._setting.model):
            rows = [schedule.row(number, place) for place in places]
            answered = self._rewards(self._policy.answer(number, rows, places=places))
            for attempt in range(1, plan.max_resample_times + 1 if plan.dynamic_sample else 1):
                answered = self._again(answered, attempt)
            known = self._policy.measured(answered)
        self._tell(answered)
        return self._with_advantages(answered, known)

    def _again(self, answered: list[Rollout], attempt: int) -> list[Rollout]:
        """With answers to other prompts in the place of groups without variance."""
        flat = self._flat_groups(answered)
        places = [one.place for one in answered if flat[one.place // self._plan.generations]]
        if not places:
            return answered
        number = answered[0].roll_out
        rows = [self._schedule.another(number, place, attempt) for place in places]
        fresh = self._rewards(self._policy.answer(number, rows, places=places, attempt=attempt))
        by_place = {one.place: one for one in fresh}
        return [by_place.get(one.place, one) for one in answered]

    def _flat_groups(self, answered: Sequence[Rollout]) -> list[bool]:
        scores = torch.tensor([one.score for one in answered], dtype=torch.float64)
        return algebra.equal(scores.view(-1, self._plan.generations)).tolist()

    def _tell(self, answered: Sequence[Rollout]) -> None:
        flat = self._flat_groups(answered)
        if any(flat):
            log.warning(
                "roll-out %d: the answers of %d of %d prompts all have one reward, and teach nothing%s",
                *(answered[0].roll_out, sum(flat), len(flat)),
                "; they are left out of the loss" if self._plan.dynamic_sample else "",
            )
        if self._plan.log_completions:
            for one in answered[:: self._plan.generations]:
                log.info("%s -> %s, reward %g %s", one.origin, one.text, one.score, one.rewards)

    def _with_advantages(self, answered: list[Rollout], known: dict[str, Tensor]) -> list[Rollout]:
        plan = self._plan
        scores = torch.tensor([one.score for one in answered], dtype=torch.float64)
        advantages = algebra.group_advantages(scores, plan.generations, plan.scale).tolist()
        flat = self._flat_groups(answered)
        per_token = {name: per_answer(values, answered) for name, values in known.items()}
        return [
            replace(
                one,
                trained=(one.ended or not plan.overlong_filter)
                and not (plan.dynamic_sample and flat[one.place // plan.generations]),
                advantages=[advantages[number]] * len(one.answer_ids),
                **{name: rows[number] for name, rows in per_token.items()},
            )
            for number, one in enumerate(answered)
        ]
