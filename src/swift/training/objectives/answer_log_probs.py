"""Log-probabilities of the tokens of answers under a model, without the logits of anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from swift.training.chunked_cross_entropy import linear_log_probs
from swift.training.objectives import Batch
from swift.training.output_head import OutputHead

MODEL_INPUTS = ("input_ids", "position_ids", "attention_mask", "sequence_lengths", "prefix_lengths")


@dataclass(frozen=True)
class TokenScores:
    """Of the N trained tokens of a batch (see `preference_batches.answers`)."""

    log_probs: Tensor
    """(N) fp32, differentiable."""
    mean_logits: Tensor
    """(N) mean of the logits over the vocabulary, without gradient."""
    hidden: Tensor
    """(N, H) what the head was given: the state from which each token is predicted."""
    batch: Batch

    def sums(self) -> Tensor:
        """(A) weighted sums of log-probabilities over the tokens of each answer."""
        return add_up(weighted(self.log_probs, self.batch), self.batch)

    def mean_logits_of(self, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Sum and count of the mean logits over the tokens of the marked answers; `answers` (A) is bool."""
        mine = answers[self.batch["answer"]]
        return self.mean_logits[mine].sum(), mine.sum()


def weighted(values: Tensor, batch: Batch) -> Tensor:
    """The values (N) times the weights of their tokens."""
    return values * batch["weights"].to(values.dtype) if "weights" in batch else values


def add_up(values: Tensor, batch: Batch) -> Tensor:
    """(A) sums of the values (N) of each answer's tokens."""
    return values.new_zeros(batch["answers"]).index_add_(0, batch["answer"], values)


def token_counts(batch: Batch) -> Tensor:
    """(A) fp32: the trained tokens of each answer, or the sum of their weights."""
    return add_up(weighted(torch.ones(batch["answer"].shape, device=batch["answer"].device), batch), batch)


def model_inputs(batch: Batch) -> dict[str, Any]:
    """What of a batch the model takes."""
    return {**{name: batch[name] for name in MODEL_INPUTS if name in batch}, "use_cache": False}


class AnswerLogProbs:
    """Scores the answers of a batch with one model; `base` is the model inside its tuner.

    Logits are divided by `temperature`.
    """

    def __init__(self, base: PreTrainedModel, temperature: float = 1.0):
        self._head = OutputHead(base)
        self.temperature = temperature

    def __call__(self, model: nn.Module, batch: Batch) -> TokenScores:
        """Run `model` (possibly wrapped) on a batch."""
        at, targets = batch["predicted_at"], batch["targets"]
        linear = self._head.linear
        if linear is None:
            hidden, logits = self._head.with_logits(model, model_inputs(batch))
            hidden = hidden.reshape(-1, hidden.shape[-1])[at]
            logits = logits.reshape(-1, logits.shape[-1])[at].float() / self.temperature
            log_probs = -cross_entropy(logits, targets, reduction="none")
            return TokenScores(log_probs, logits.detach().mean(-1), hidden, batch)
        hidden = self._head.hidden(model, model_inputs(batch))
        hidden = hidden.reshape(-1, hidden.shape[-1])[at]
        return TokenScores(
            self._of_states(linear, hidden, targets), _mean_logits(linear, hidden.detach()), hidden, batch
        )

    def again(self, model: nn.Module, scores: TokenScores) -> Tensor:
        """(N) log-probabilities of what was scored at another temperature; from its states, where those are enough."""
        if self._head.linear is None:
            return self(model, scores.batch).log_probs
        return self._of_states(self._head.linear, scores.hidden, scores.batch["targets"])

    def _of_states(self, linear: nn.Linear, hidden: Tensor, targets: Tensor) -> Tensor:
        frozen = not torch.is_grad_enabled()
        weight = linear.weight.detach() if frozen else linear.weight
        bias = linear.bias.detach() if frozen and linear.bias is not None else linear.bias
        if self.temperature != 1.0:
            hidden, bias = hidden / self.temperature, None if bias is None else bias / self.temperature
        return linear_log_probs(hidden, weight, bias, targets)


@torch.no_grad()
def _mean_logits(linear: nn.Linear, hidden: Tensor) -> Tensor:
    """The mean of the logits is the logit of the mean row: no (N, V) matrix."""
    mean = hidden.float() @ linear.weight.float().mean(0)
    return mean if linear.bias is None else mean + linear.bias.float().mean()
