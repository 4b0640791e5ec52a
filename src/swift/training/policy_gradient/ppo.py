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
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from swift.core.log import log
from swift.engines.base import SamplingParams
from swift.models.value_head import CRITIC, NAME, ValueHead, read_head, save_head
from swift.plan.roll_outs import PpoPlan
from swift.training.batches import tokens_in
from swift.training.objectives import Batch, Objective, Setting, Sums
from swift.training.objectives.answer_log_probs import AnswerLogProbs
from swift.training.objectives.reference import build_reference, evaluating
from swift.training.policy_gradient import algebra, rollouts
from swift.training.policy_gradient.reward_model import Scorer, load_reward_model
from swift.training.policy_gradient.rollouts import Rollout
from swift.training.policy_gradient.sampling import sample
from swift.training.policy_gradient.schedule import Schedule
from swift.training.preference_batches import account, answers

PER_TOKEN = ("log_probs", "ref_log_probs", "values", "advantages", "returns")
GAP = 0.05
"""Mean difference of log-probabilities from which the engine and the training forward pass are not one model."""


def collator(setting: Setting) -> Collate:
    """What makes a batch of items of the schedule."""
    return Collate()


class Collate:
    """Only says which answers: they may not have been given yet."""

    def __call__(self, items: list[dict[str, Any]]) -> Batch:
        """The batch, with `roll_out` and the `places` in it."""
        return {"roll_out": items[0]["roll_out"], "places": [item["place"] for item in items], **account(items)}


def build(setting: Setting) -> Objective:
    """The objective of `--rlhf_type ppo`: a critic's head is put on the model, the reward model is loaded."""
    assert setting.plan.alignment is not None and setting.plan.alignment.ppo is not None
    plan = setting.plan.alignment.ppo
    head = ValueHead(setting.base.config.get_text_config().hidden_size).to(setting.base.device)
    nn.init.zeros_(head.summary.weight)
    nn.init.zeros_(head.summary.bias)
    if setting.resume is not None:
        read_head(head, setting.resume, (CRITIC,))
    scorer = load_reward_model(setting, plan.reward_model)
    objective = PpoObjective(setting, plan, head, scorer)
    setting.model.add_module(NAME, head)
    return objective


class PpoObjective(Objective):
    """Clipped policy and value losses, a mean over the answer tokens of an optimizer step."""

    added = NAME

    def __init__(self, setting: Setting, plan: PpoPlan, head: ValueHead, scorer: Scorer):
        assert setting.plan.alignment is not None and setting.plan.alignment.reference is not None
        self._setting, self._plan, self._head, self._scorer = setting, plan, head, scorer
        self._schedule: Schedule = setting.rows
        self._answers = AnswerLogProbs(setting.base, plan.temperature)
        self._reference = build_reference(setting, setting.plan.alignment.reference, self._answers)
        self._file = setting.folder / rollouts.FILE
        self._current: list[Rollout] = []
        if setting.continued is not None:
            self._current = rollouts.read(setting.continued / rollouts.FILE)
            rollouts.forget_after(self._file, self._current[0].roll_out)
        else:
            rollouts.write(self._file, ())

    def begin_step(self, model: nn.Module, batches: Iterable[Batch]) -> None:
        """Make the roll-out that the step trains on, where it is not the last one."""
        number = next(iter(batches))["roll_out"]
        if not self._current or self._current[0].roll_out != number:
            self._current = self._roll_out(number)
            rollouts.write(self._file, self._current, mode="a")

    def denominator(self, batch: Batch) -> Tensor:
        """The tokens of the answers."""
        return torch.tensor(float(sum(len(self._current[place].answer_ids) for place in batch["places"])))

    def sums(self, model: nn.Module, batch: Batch) -> Sums:
        """The summed losses over the tokens of the batch's answers, and what is known of them."""
        given = [self._current[place] for place in batch["places"]]
        batch.update(self._batch([rollout.item for rollout in given]))
        batch["tokens"] = tokens_in(batch)  # for the Trainer
        scores = self._answers(model, batch)
        values, log_probs = self._head(scores.hidden), scores.log_probs
        old = {name: self._flat(given, name) for name in ("log_probs", "values", "advantages", "returns")}
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

    def save(self, folder: Path) -> None:
        """The critic's head, the roll-out under way, and what the reference needs."""
        save_head(self._head, folder, CRITIC)
        rollouts.write(folder / rollouts.FILE, self._current)
        self._reference.save(folder)

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
        model = self._setting.model
        with evaluating(model):
            sampled = self._sampled(number)
            values = self._measured(sampled)
        return self._with_advantages(sampled, values)

    def _sampled(self, number: int) -> list[Rollout]:
        """The answers, with nothing known of them but what the engine says."""
        setting, plan, schedule = self._setting, self._plan, self._schedule
        tokenizer = setting.encoder.tokens.tokenizer
        numbers = [schedule.row(number, place) for place in range(schedule.size)]
        prompts: list[list[int]] = [list(schedule.prompts[row]["input_ids"]) for row in numbers]
        how = [self._sampling(number * schedule.size + place) for place in range(schedule.size)]
        given = sample(setting.base, tokenizer, prompts, how, plan.forward_rows)
        return [
            Rollout(
                roll_out=number,
                place=place,
                row=row,
                origin=schedule.origin(row),
                prompt_ids=prompt,
                answer_ids=list(answer.ids),
                text=str(tokenizer.decode(list(answer.ids))),
                ended=answer.ended,
                engine_log_probs=list(answer.log_probs),
                score=0.0,
                **{name: [] for name in PER_TOKEN},
            )
            for place, (row, prompt, answer) in enumerate(zip(numbers, prompts, given, strict=True))
        ]

    def _sampling(self, number: int) -> SamplingParams:
        """How answer `number` of the run is sampled: by a seed of its own."""
        plan, encoder = self._plan, self._setting.encoder
        return SamplingParams(
            max_tokens=plan.max_new_tokens,
            temperature=plan.temperature,
            top_k=plan.top_k,
            top_p=plan.top_p,
            seed=(self._setting.plan.train.group.seed * 1_000_003 + number) % 2**31,
            stop=encoder.stop_strings,
            stop_token_ids=encoder.stop_token_ids,
            logprobs=0,
        )

    def _measured(self, sampled: list[Rollout]) -> dict[str, Tensor]:
        """Scores (R), and of all tokens, one answer after the other (N), log-probabilities and values."""
        parts: dict[str, list[Tensor]] = {name: [] for name in ("log_probs", "ref_log_probs", "values", "score")}
        plain = AnswerLogProbs(self._setting.base)
        gaps: list[Tensor] = []
        model, size = self._setting.model, self._plan.forward_rows
        for start in range(0, len(sampled), size):
            some = sampled[start : start + size]
            items = [one.item for one in some]
            batch = self._batch(items)
            scores = self._answers(model, batch)
            at_one = scores if self._plan.temperature == 1.0 else plain(model, batch)
            gaps.append((at_one.log_probs.cpu() - self._flat(some, "engine_log_probs").cpu()).abs())
            parts["log_probs"].append(scores.log_probs)
            parts["values"].append(self._head(scores.hidden))
            parts["ref_log_probs"].append(self._reference.log_probs(batch))
            parts["score"].append(self._scorer(items))
        gap = torch.cat(gaps)
        report = log.warning if gap.mean() > GAP else log.info
        report(
            "roll-out %d: %d answers; engine and training differ in log-probability by %.1e (mean), %.1e (most)",
            *(sampled[0].roll_out, len(sampled), gap.mean(), gap.max()),
        )
        return {name: torch.cat(some).float().cpu() for name, some in parts.items()}

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

    def _batch(self, items: Sequence[dict[str, Any]]) -> Batch:
        batch: Any = send_to_device(answers(items, self._setting.flat, self._setting.pad_id), self._setting.base.device)
        return batch

    def _flat(self, given: Sequence[Rollout], name: str) -> Tensor:
        """(N) one number of each token, one answer after the other."""
        numbers = [number for one in given for number in getattr(one, name)]
        return torch.tensor(numbers, device=self._setting.base.device)
