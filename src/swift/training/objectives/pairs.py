"""What preference losses are written in: the log-probabilities of pairs of answers, summed over their tokens."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

from torch import Tensor
from torch.nn.functional import logsigmoid

from swift.plan.rlhf import LossPlan


@dataclass(frozen=True)
class Pairs:
    """P pairs of answers to the same prompts; every tensor is (P,) and fp32 or better.

    `chosen` and `rejected` are differentiable. The reference is None for methods that have none.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    reference_chosen: Tensor | None = None
    reference_rejected: Tensor | None = None

    @property
    def chosen_ratio(self) -> Tensor:
        """log(policy / reference) of the chosen answers."""
        return self.chosen if self.reference_chosen is None else self.chosen - self.reference_chosen

    @property
    def rejected_ratio(self) -> Tensor:
        """log(policy / reference) of the rejected answers."""
        return self.rejected if self.reference_rejected is None else self.rejected - self.reference_rejected

    def per_token(self) -> Pairs:
        """The same with means over the tokens of each answer in place of sums."""
        c, r = self.chosen_tokens, self.rejected_tokens
        return replace(
            self,
            chosen=self.chosen / c,
            rejected=self.rejected / r,
            reference_chosen=None if self.reference_chosen is None else self.reference_chosen / c,
            reference_rejected=None if self.reference_rejected is None else self.reference_rejected / r,
        )


@dataclass(frozen=True)
class Terms:
    """What a method makes of pairs: a loss for each, and what is logged. Every tensor is (P,)."""

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor
    per_token: bool = False
    """Whether log-probabilities are logged as means over tokens, as the loss has them."""
    extra: dict[str, Tensor] = field(default_factory=dict)


class Method(Protocol):
    """The algebra of a method. `shift` (scalar) is the running mean of rewards, for the losses that have one."""

    def __call__(self, pairs: Pairs, plan: LossPlan, shift: Tensor) -> Terms: ...


def smoothed(logits: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of "the first is better" where a share `smoothing` of the labels is taken to be wrong."""
    return -logsigmoid(logits) * (1 - smoothing) - logsigmoid(-logits) * smoothing
