"""Picking the next token of each sequence from its logits."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swift.engines.base import Sampling
from swift.engines.grammar import Grammar

HEAD = 512
"""Candidates that nearly always hold the top_p mass; sorting the whole vocabulary is the exception."""


@dataclass(frozen=True)
class Pick:
    """A chosen token, with the log-probabilities the request asked for (natural log, of the model's own logits)."""

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Picker:
    """The sampling state of one sequence: its penalties, its grammar and its own random numbers."""

    def __init__(
        self, sampling: Sampling, index: int, prompt_ids: Sequence[int], end_ids: Sequence[int], grammar: Grammar | None
    ):
        self.sampling = sampling
        self.grammar = grammar
        self._prompt_ids = prompt_ids
        self._end_ids = list(end_ids)
        self._made = 0
        self._generator: torch.Generator | None = None
        self._seed = (int.from_bytes(os.urandom(7)) if sampling.seed is None else sampling.seed) + index
        self._counts: Tensor | None = None
        self._seen: Tensor | None = None

    @property
    def plain(self) -> bool:
        """Whether the likeliest token is the answer and nothing else is asked."""
        s = self.sampling
        return (
            s.temperature == 0
            and s.logprobs is None
            and self.grammar is None
            and s.repetition_penalty == 1
            and not s.presence_penalty
            and not s.frequency_penalty
            and self._made >= s.min_tokens
        )

    def pick(self, logits: Tensor) -> Pick:
        """Choose from `logits`, (vocabulary,), which stay as they are."""
        scores = logits.float()
        raw = scores
        scores = self._penalised(scores)
        if self._made < self.sampling.min_tokens and self._end_ids:
            scores = scores.index_fill(0, torch.tensor(self._end_ids, device=scores.device), -math.inf)
        if self.grammar is not None:
            scores = self.grammar.masked(scores)
        token_id = int(scores.argmax()) if self.sampling.temperature == 0 else self._sample(scores)
        return self._reported(raw, token_id)

    def took(self, token_id: int) -> None:
        """The sequence goes on with `token_id`."""
        self._made += 1
        if self.grammar is not None:
            self.grammar.took(token_id)
        if self._counts is not None:
            self._counts[token_id] += 1
        if self._seen is not None:
            self._seen[token_id] = True

    def _penalised(self, scores: Tensor) -> Tensor:
        s = self.sampling
        if s.repetition_penalty != 1:
            if self._seen is None:
                self._seen = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
                self._seen[torch.tensor(self._prompt_ids, device=scores.device)] = True
            lowered = torch.where(scores < 0, scores * s.repetition_penalty, scores / s.repetition_penalty)
            scores = torch.where(self._seen, lowered, scores)
        if s.presence_penalty or s.frequency_penalty:
            if self._counts is None:
                self._counts = torch.zeros_like(scores)
            scores = scores - s.frequency_penalty * self._counts - s.presence_penalty * (self._counts > 0)
        return scores

    def _sample(self, scores: Tensor) -> int:
        s = self.sampling
        if self._generator is None:
            self._generator = torch.Generator(device=scores.device).manual_seed(self._seed % 2**63)
        scores = scores / s.temperature
        kept: Tensor | None = None
        if 0 < s.top_k < scores.shape[-1]:
            scores, kept = scores.topk(s.top_k)
        probabilities = torch.softmax(scores, dim=-1)
        if s.top_p < 1:
            probabilities, order = _nucleus(probabilities, s.top_p)
            kept = order if kept is None else kept[order]
        at = int(torch.multinomial(probabilities, 1, generator=self._generator))
        return at if kept is None else int(kept[at])

    def _reported(self, raw: Tensor, token_id: int) -> Pick:
        if self.sampling.logprobs is None:
            return Pick(token_id)
        logprobs = torch.log_softmax(raw, dim=-1)
        values, ids = logprobs.topk(min(self.sampling.logprobs, logprobs.shape[-1]))
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
        return Pick(token_id, float(logprobs[token_id]), top)


def _nucleus(probabilities: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The likeliest tokens that together reach `top_p`, at least one: their probabilities and places."""
    values, order = probabilities.topk(min(HEAD, probabilities.shape[-1]))
    if float(values.sum()) < top_p:
        values, order = probabilities.sort(descending=True)
    before = values.cumsum(0) - values
    count = max(1, int((before < top_p).sum()))
    return values[:count], order[:count]


def pick_all(pickers: Sequence[Picker], logits: Tensor) -> list[Pick]:
    """One pick for each row of `logits`, (sequences, vocabulary)."""
    if all(picker.plain for picker in pickers):
        return [Pick(token_id) for token_id in logits.argmax(-1).tolist()]
    return [picker.pick(row) for picker, row in zip(pickers, logits, strict=True)]
