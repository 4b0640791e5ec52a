"""Log-probabilities of the tokens of answers under a model, without the logits of anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from swift.models.value_head import ValueHead
from swift.training.chunked_cross_entropy import linear_log_probs
from swift.training.objectives import Batch
from swift.training.output_head import OutputHead

MODEL_INPUTS = (
    "input_ids",
    "position_ids",
    "attention_mask",
    "sequence_lengths",
    "prefix_lengths",
    "sequence_group",
)
MEDIA_INPUTS = "media_inputs"
"""Of a batch whose answers are about media: what its model is given of them."""
ANSWER_TOKENS = "answer_tokens"
"""The `token_counts` of a batch of which only a stretch is computed here."""
ENDED_HERE = "ended_here"
"""And the answers whose last tokens are, at the places `last`."""


@dataclass(frozen=True)
class TokenScores:
    """Of the N trained tokens of a batch (see `preference_batches.answers`)."""

    log_probs: Tensor
    """(N) fp32, differentiable."""
    mean_logits: Tensor
    """(N) mean of the logits over the vocabulary, without gradient."""
    batch: Batch
    values: Tensor | None = None
    """(N) fp32, differentiable: of the state from which each token is predicted, where a critic was asked for."""
    untempered: Tensor | None = None
    """(N) the log-probabilities at temperature 1, without gradient, where they were asked for."""

    def sums(self) -> Tensor:
        """(A) weighted sums of log-probabilities over the tokens of each answer, wherever they are computed."""
        mine = add_up(weighted(self.log_probs, self.batch), self.batch)
        return self.batch["sequence_group"].sum(mine) if "sequence_group" in self.batch else mine

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
    if ANSWER_TOKENS in batch:
        return batch[ANSWER_TOKENS]
    return add_up(weighted(torch.ones(batch["answer"].shape, device=batch["answer"].device), batch), batch)


def model_inputs(batch: Batch) -> dict[str, Any]:
    """What of a batch the model takes."""
    of_tokens = {name: batch[name] for name in MODEL_INPUTS if name in batch}
    return {**of_tokens, **batch.get(MEDIA_INPUTS, {}), "use_cache": False}


class AnswerLogProbs:
    """Scores the answers of a batch with one model; `base` is the model inside its tuner.

    Logits are divided by `temperature`.
    """

    def __init__(self, base: PreTrainedModel, temperature: float = 1.0):
        self._head = OutputHead(base)
        self.temperature = temperature

    def __call__(
        self, model: nn.Module, batch: Batch, *, critic: ValueHead | None = None, untempered: bool = False
    ) -> TokenScores:
        """Run `model` (possibly wrapped) on a batch; `untempered` asks for the log-probabilities at 1 as well."""
        at, targets = batch["predicted_at"], batch["targets"]
        noted: list[tuple[Tensor, Tensor | None]] = []

        def with_values(log_probs: Tensor, states: Tensor) -> Tensor:
            return log_probs if critic is None else torch.stack([log_probs, critic(states)])

        def score(hidden: Tensor, head: nn.Linear) -> Tensor:
            states = hidden.reshape(-1, hidden.shape[-1])[at]
            at_one = _of_states(head, states.detach(), targets, 1.0).detach() if untempered else None
            noted.append((_mean_logits(head, states.detach()), at_one))
            return with_values(_of_states(head, states, targets, self.temperature), states)

        def score_logits(hidden: Tensor, all_logits: Tensor) -> Tensor:
            logits = all_logits.reshape(-1, all_logits.shape[-1])[at].float()
            at_one = -cross_entropy(logits.detach(), targets, reduction="none") if untempered else None
            noted.append(((logits.detach() / self.temperature).mean(-1), at_one))
            log_probs = -cross_entropy(logits / self.temperature, targets, reduction="none")
            return with_values(log_probs, hidden.reshape(-1, hidden.shape[-1])[at])

        inputs = model_inputs(batch)
        if self._head.plain:
            found = self._head.compute(model, inputs, score)
        else:
            found = self._head.with_logits(model, inputs, score_logits)
        log_probs, values = (found, None) if critic is None else found
        return TokenScores(log_probs, noted[0][0], batch, values, noted[0][1])


def _of_states(head: nn.Linear, hidden: Tensor, targets: Tensor, temperature: float) -> Tensor:
    frozen = not torch.is_grad_enabled()
    weight = head.weight.detach() if frozen else head.weight
    bias = head.bias.detach() if frozen and head.bias is not None else head.bias
    if temperature != 1.0:
        hidden, bias = hidden / temperature, None if bias is None else bias / temperature
    return linear_log_probs(hidden, weight, bias, targets)


@torch.no_grad()
def _mean_logits(head: nn.Linear, hidden: Tensor) -> Tensor:
    """The mean of the logits is the logit of the mean row: no (N, V) matrix."""
    mean = hidden.float() @ head.weight.float().mean(0)
    return mean if head.bias is None else mean + head.bias.float().mean()
