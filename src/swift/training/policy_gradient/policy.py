"""The trained model as it answers: sampling by the engine, log-probabilities by the forward pass of training."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from swift.core.log import log
from swift.engines.base import SamplingParams
from swift.models.value_head import ValueHead
from swift.plan.rlhf import ReferencePlan
from swift.plan.roll_outs import AnswersPlan
from swift.training.objectives import Batch, Setting
from swift.training.objectives.answer_log_probs import AnswerLogProbs
from swift.training.objectives.reference import Reference, build_reference
from swift.training.policy_gradient.answer_batches import batch_of
from swift.training.policy_gradient.rollouts import Rollout
from swift.training.policy_gradient.sampling import sample
from swift.training.policy_gradient.schedule import Schedule
from swift.training.policy_gradient.shares import gathered, share
from swift.training.preference_batches import media_inputs
from swift.training.shared_beginnings import can_share

GAP = 0.05
"""Mean difference of log-probabilities from which the engine and the training forward pass are not one model."""


class Policy:
    """The model, how it samples, and what it is compared with."""

    def __init__(self, setting: Setting, plan: AnswersPlan, reference: ReferencePlan | None):
        self._setting, self._plan = setting, plan
        self.scores = AnswerLogProbs(setting.base, plan.temperature)
        """At the temperature of the run."""
        self.reference: Reference | None = (
            None if reference is None else build_reference(setting, reference, self.scores)
        )
        self.size = plan.forward_rows
        """Rows of a forward pass while rolling out."""
        self._shares = can_share(setting)

    def answer(self, roll_out: int, rows: Sequence[int], *, places: Sequence[int], attempt: int = 0) -> list[Rollout]:
        """An answer to each prompt of these `rows`, with nothing known of it but what the engine says."""
        return gathered(self._share_of_answers(roll_out, share(rows), share(places), attempt))

    def _share_of_answers(
        self, roll_out: int, rows: Sequence[int], places: Sequence[int], attempt: int
    ) -> list[Rollout]:
        setting, schedule = self._setting, self._schedule
        tokenizer = setting.encoder.tokens.tokenizer
        # A prompt whose media cannot be decoded any more is another one.
        prompts: list[dict[str, Any]] = [schedule.prompts[row] for row in rows]
        how = [self._sampling(roll_out * schedule.size + place, attempt) for place in places]
        if not prompts:
            return []
        given = sample(setting.base, tokenizer, prompts, how, self.size, setting.images)
        return [
            Rollout(
                roll_out=roll_out,
                place=place,
                row=prompt["row"],
                origin=schedule.origin(prompt["row"]),
                prompt_ids=list(prompt["input_ids"]),
                answer_ids=list(answer.ids),
                text=answer.text,
                ended=answer.ended,
                engine_log_probs=list(answer.log_probs),
            )
            for place, prompt, answer in zip(places, prompts, given, strict=True)
        ]

    @property
    def _schedule(self) -> Schedule:
        return self._setting.rows

    def _sampling(self, number: int, attempt: int) -> SamplingParams:
        """How answer `number` of the run is sampled: by a seed of its own."""
        plan, encoder = self._plan, self._setting.encoder
        seed = self._setting.plan.train.group.seed
        first = (seed * 1_000_003 + number) % 2**31
        return SamplingParams(
            max_tokens=plan.max_new_tokens,
            temperature=plan.temperature,
            top_k=plan.top_k,
            top_p=plan.top_p,
            seed=random.Random(f"{seed} {number} {attempt}").getrandbits(31) if attempt else first,
            stop=encoder.stop_strings,
            stop_token_ids=encoder.stop_token_ids,
            logprobs=0,
        )

    def measured(self, answered: Sequence[Rollout], head: ValueHead | None = None) -> dict[str, Tensor]:
        """Of all tokens, one answer after the other (N), fp32 on the CPU: `log_probs`, and where there is a reference
        `ref_log_probs`, and where there is a critic's head `values`."""
        parts = gathered([self._measured(share(answered), head)])
        known = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        gap = known.pop("gap")
        report = log.warning if gap.mean() > GAP else log.info
        report(
            "roll-out %d: %d answers; engine and training differ in log-probability by %.1e (mean), %.1e (most)",
            *(answered[0].roll_out, len(answered), gap.mean(), gap.max()),
        )
        return known

    def _measured(self, answered: Sequence[Rollout], head: ValueHead | None) -> dict[str, Tensor]:
        """With `gap`, how far the engine was from the forward pass of training."""
        parts: dict[str, list[Tensor]] = defaultdict(list)
        model = self._setting.model
        for start in range(0, len(answered), self.size):
            some = answered[start : start + self.size]
            batch = self.batch(some)
            scores = self.scores(model, batch, critic=head, untempered=True)
            assert scores.untempered is not None
            parts["gap"].append((scores.untempered - self.flat(some, "engine_log_probs")).abs())
            parts["log_probs"].append(scores.log_probs)
            if scores.values is not None:
                parts["values"].append(scores.values)
            if self.reference is not None:
                parts["ref_log_probs"].append(self.reference.log_probs(batch))
        return {name: torch.cat(some).float().cpu() for name, some in parts.items()}

    def batch(self, given: Sequence[Rollout]) -> Batch:
        """Answers as a batch of the trained model."""
        setting = self._setting
        return batch_of(setting, given, setting.base, setting.flat, media_inputs(setting), shared=self._shares)

    def flat(self, given: Sequence[Rollout], name: str) -> Tensor:
        """(N) one number of each token, one answer after the other."""
        numbers = [number for one in given for number in getattr(one, name)]
        return torch.tensor(numbers, device=self._setting.base.device)


def per_answer(values: Tensor, sampled: Sequence[Rollout]) -> list[list[float]]:
    """The values (N) of each answer's tokens."""
    return [part.tolist() for part in torch.split(values, [len(one.answer_ids) for one in sampled])]
