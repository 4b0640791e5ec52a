"""Picking the next token of each sequence from its logits, for the whole batch at once."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swift.core.errors import SwiftError
from swift.engines.base import SamplingParams
from swift.engines.grammar import Grammar

HEAD = 512
"""Candidates that nearly always hold the top_p mass; sorting the whole vocabulary is the exception."""


@dataclass(frozen=True)
class Pick:
    """A chosen token, with the log-probabilities the request asked for (natural log, of the model's own logits)."""

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class NoToken(SwiftError):
    """There is nothing to pick."""


class Picker:
    """The sampling state of one sequence: its penalties, its grammar and its own random numbers."""

    def __init__(
        self,
        sampling: SamplingParams,
        index: int,
        prompt_ids: Sequence[int],
        end_ids: Sequence[int],
        grammar: Grammar | None,
    ):
        self.sampling = sampling
        self.grammar = grammar
        self._prompt_ids = prompt_ids
        self._end_ids = list(end_ids)
        self._made = 0
        self._random = random.Random(
            (int.from_bytes(os.urandom(7)) if sampling.seed is None else sampling.seed) + index
        )
        self._counts: Tensor | None = None
        self._seen: Tensor | None = None

    @property
    def adjusts(self) -> bool:
        """Whether the logits are changed before the choice."""
        s = self.sampling
        changed = s.repetition_penalty != 1 or s.presence_penalty or s.frequency_penalty or s.logit_bias
        return bool(changed) or self.grammar is not None or self._made < s.min_tokens

    def adjust(self, scores: Tensor) -> None:
        """Biases, penalties, the least length and the grammar, in place on `scores`, (vocabulary,).

        Penalties are about what the biases made of the logits, as in vLLM, llama.cpp and transformers.
        """
        s = self.sampling
        if s.logit_bias:
            ids, biases = zip(*s.logit_bias, strict=True)
            scores[list(ids)] += torch.tensor(biases, device=scores.device)
        if s.repetition_penalty != 1:
            if self._seen is None:
                self._seen = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
                self._seen[torch.tensor(self._prompt_ids, device=scores.device)] = True
            lowered = torch.where(scores < 0, scores * s.repetition_penalty, scores / s.repetition_penalty)
            scores.copy_(torch.where(self._seen, lowered, scores))
        if s.presence_penalty or s.frequency_penalty:
            if self._counts is None:
                self._counts = torch.zeros_like(scores)
            scores -= s.frequency_penalty * self._counts + s.presence_penalty * (self._counts > 0)
        ends = [each for each in self._end_ids if each < len(scores)]
        if self._made < s.min_tokens and ends:
            scores[ends] = -math.inf
        if self.grammar is not None:
            scores.copy_(self.grammar.masked(scores))

    def draw(self) -> float:
        """The next random number of this sequence, from [0, 1)."""
        return self._random.random()

    def took(self, token_id: int) -> None:
        """The sequence goes on with `token_id`."""
        self._made += 1
        if self.grammar is not None:
            self.grammar.took(token_id)
        if self._counts is not None:
            self._counts[token_id] += 1
        if self._seen is not None:
            self._seen[token_id] = True


def pick_all(pickers: Sequence[Picker], logits: Tensor) -> list[Pick | NoToken]:
    """One pick for each row of `logits`, (sequences, vocabulary), which stay as they are.

    What a row gives does not depend on the rows beside it. A row without a largest number gives NoToken.
    """
    scores = logits.float()
    changed = [row for row, picker in enumerate(pickers) if picker.adjusts]
    if changed:
        scores = scores.clone() if scores is logits else scores
        for row in changed:
            pickers[row].adjust(scores[row])
    chosen = scores.argmax(-1)
    largest = scores.gather(-1, chosen[:, None])[:, 0]  # a NaN counts as the largest
    sampled = [row for row, picker in enumerate(pickers) if picker.sampling.temperature > 0]
    if sampled:
        chosen[sampled] = _sample([pickers[row] for row in sampled], scores[sampled])
    # One transfer for both: on a GPU each of them would wait for the step.
    rows = torch.stack((chosen, largest.isfinite().long()), dim=-1).tolist()
    return [
        _reported(picker, token_id, logits[at]) if usable else _nothing(logits[at])
        for at, (picker, (token_id, usable)) in enumerate(zip(pickers, rows, strict=True))
    ]


def _nothing(logits: Tensor) -> NoToken:
    """Why no token of the row can be picked."""
    if bool(logits.max().isfinite()):
        return NoToken("the request's grammar and biases leave no token that may come next")
    return NoToken(
        "the model's logits are not numbers (NaN or infinite): its weights or the adapter's are broken, "
        "or --dtype is too narrow for them"
    )


def _sample(pickers: Sequence[Picker], scores: Tensor) -> Tensor:
    """Token ids drawn from the rows of `scores` by each one's temperature, min_p, top_k and top_p: (rows,)."""
    size = scores.shape[-1]

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, device=scores.device)[:, None]

    scores = scores / column([p.sampling.temperature for p in pickers])
    if any(p.sampling.min_p > 0 for p in pickers):
        # A share of the likeliest token's probability is a distance from its logit.
        shares = column([math.log(p.sampling.min_p) if p.sampling.min_p > 0 else -math.inf for p in pickers])
        scores = scores.masked_fill(scores < scores.amax(-1, keepdim=True) + shares, -math.inf)
    drawn = column([p.draw() for p in pickers])
    limits = [p.sampling.top_k if 0 < p.sampling.top_k < size else size for p in pickers]
    wholes = [row for row, p in enumerate(pickers) if limits[row] == size and p.sampling.top_p >= 1]
    cut = [row for row in range(len(pickers)) if row not in set(wholes)]
    tokens = torch.empty(len(pickers), dtype=torch.long, device=scores.device)
    if wholes:
        tokens[wholes] = _invert(torch.softmax(scores[wholes], dim=-1), drawn[wholes])
    if cut:
        top_p = column([pickers[row].sampling.top_p for row in cut])
        tokens[cut] = _sample_cut(scores[cut], column([limits[row] for row in cut]), top_p, drawn[cut])
    return tokens


def _sample_cut(scores: Tensor, top_k: Tensor, top_p: Tensor, drawn: Tensor) -> Tensor:
    """As `_sample`, for rows that keep only their likeliest tokens; the last three arguments are (rows, 1)."""
    size = scores.shape[-1]
    # Every row's top_k fits into the head; rows without one take what HEAD candidates give, if that is enough.
    limited = top_k < size
    head = max([int(k) for k in top_k[limited]] + ([] if limited.all() else [min(HEAD, size)]))
    while True:
        values, order = scores.topk(head, dim=-1)
        values = values.masked_fill(torch.arange(head, device=scores.device) >= top_k, -math.inf)
        total = torch.where(limited, values.logsumexp(-1, keepdim=True), scores.logsumexp(-1, keepdim=True))
        probabilities = (values - total).exp()
        cumulative = probabilities.cumsum(-1)
        if head == size or bool((limited | (cumulative[:, -1:] >= top_p)).all()):
            break
        head = size
    # The likeliest tokens that together reach top_p, at least one.
    probabilities = probabilities * (cumulative - probabilities < top_p)
    return order.gather(1, _invert(probabilities, drawn)[:, None])[:, 0]


def _invert(probabilities: Tensor, drawn: Tensor) -> Tensor:
    """Where the running sum of each row passes its share `drawn`, (rows, 1), of the row's sum: (rows,)."""
    cumulative = probabilities.double().cumsum(-1)
    at = torch.searchsorted(cumulative, drawn.double() * cumulative[:, -1:], right=True)[:, 0]
    # Rounding may end a running sum below its last step; then the last token of any weight is meant.
    last = probabilities.shape[-1] - 1 - (probabilities.flip(-1) > 0).int().argmax(-1)
    return torch.minimum(at, last)


def _reported(picker: Picker, token_id: int, logits: Tensor) -> Pick:
    count = picker.sampling.logprobs
    if count is None:
        return Pick(token_id)
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    values, ids = logprobs.topk(min(count, logprobs.shape[-1]))
    return Pick(token_id, float(logprobs[token_id]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))
