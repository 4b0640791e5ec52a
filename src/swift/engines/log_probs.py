"""Log-probabilities of given continuations of a prompt, computed between the steps of the answers.

A prompt is read once for all its continuations, and several prompts share a forward pass: one row of tokens, in which
each continuation sees its prompt and itself (a mask of four dimensions, which models with plain attention take). What
all prompts of a row begin with stands there once. What a row of that kind gives is compared with separate passes first;
models where it differs read text by text.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.engines.adapter_pool import AdaptedModel
from swift.engines.dynamic_rope import DynamicRope
from swift.engines.encoder_decoder import split_inputs
from swift.engines.image_prompt import ImagePrompt
from swift.engines.sampler import Pick

ROW = 512
"""Tokens of a row of several prompts."""
LONGEST_ROW = 4096
"""Tokens of a row of one prompt and its continuations: the mask grows with their square."""
BLOCK = 1024
"""Rows of logits computed at once."""
NEAR = 1e-3
"""How far log-probabilities of the two ways may lie apart, in fp32; twenty times as far in less precise types."""
Ids = tuple[int, ...]
LogProbs = list[list[Pick]]


@dataclass(eq=False)
class Scored:
    """The continuations of one prompt, none of them empty."""

    prompt: Ids
    continuations: Sequence[Ids]
    adapter: str | None
    top: int
    """How many of the likeliest tokens are told beside each."""
    result: Future[LogProbs]
    images: ImagePrompt | None = None
    """What is shown in the prompt: such a text is read alone."""

    @property
    def size(self) -> int:
        """Tokens in a row: the last one of a continuation predicts nothing that is wanted."""
        return len(self.prompt) + sum(len(each) - 1 for each in self.continuations)


class Continuations:
    """The requests for log-probabilities. Every method runs in the thread that owns the model."""

    def __init__(self, model: AdaptedModel, opening: Sequence[int] = ()):
        """`opening` is what answers of an encoder with a decoder begin with: they are read text by text."""
        self._model = model
        self._opening = opening
        self._rope = DynamicRope(model.base)
        self._waiting: deque[Scored] = deque()
        self._keeps = "logits_to_keep" in inspect.signature(model.base.forward).parameters

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, scored: Scored) -> None:
        """Queue a prompt with its continuations; the result takes their log-probabilities, or what went wrong."""
        self._waiting.append(scored)

    def end(self) -> None:
        """The engine stops: nobody waits any more."""
        while self._waiting:
            self._waiting.popleft().result.cancel()

    def step(self) -> None:
        """Read the next prompts with their continuations. A mistake ends its request and nothing else."""
        group = self._next()
        try:
            values = self._row(group) if self._fits(group) else [self._one_by_one(group[0])]
        except Exception as error:  # memory, a driver: the answers that run beside it go on
            if len(group) > 1:
                for scored in group:
                    self._alone(scored)
                return
            log.exception("the log-probabilities of a text were not computed")
            _settle(group[0], error)
            return
        for scored, each in zip(group, values, strict=True):
            _settle(scored, each)

    def _next(self) -> list[Scored]:
        """The first in the queue, and those behind it that fit into a row with it."""
        group = [self._waiting.popleft()]
        while self._waiting and self._fits([*group, self._waiting[0]]):
            group.append(self._waiting.popleft())
        return group

    def _fits(self, group: list[Scored]) -> bool:
        shown = any(scored.images is not None for scored in group)
        if shown or self._opening or len({scored.adapter for scored in group}) > 1 or not self._longest:
            return False
        size = sum(scored.size for scored in group) - (len(group) - 1) * _common(group)
        alone = len(group) == 1 and group[0].size - len(group[0].prompt) < BLOCK  # the logits of a row are all there
        return size <= (self._longest if alone else min(ROW, self._longest))

    def _alone(self, scored: Scored) -> None:
        try:
            _settle(scored, self._one_by_one(scored))
        except Exception as error:
            log.exception("the log-probabilities of a text were not computed")
            _settle(scored, error)

    @cached_property
    def _longest(self) -> int:
        """Tokens of the longest row that the model can read, 0 where it reads text by text; tried when it is needed."""
        config = self._model.base.config.get_text_config(decoder=True)
        windows = [config.to_dict().get(name) for name in ("sliding_window", "attention_chunk_size")]
        if self._rope:
            return 0
        rows = min(config.vocab_size, 97)
        text = tuple((5 * at + 3) % rows for at in range(24))
        trial = [
            Scored(text[:7], [text[7:12], text[12:13], text[3:9]], None, 0, Future()),
            Scored((*text[:4], *text[10:15]), [text[:2]], None, 0, Future()),
        ]
        try:
            together, apart = self._row(trial), [self._one_by_one(scored) for scored in trial]
        except Exception as error:  # whatever goes wrong on a way that is only tried, the way is not taken
            log.debug("%s: %s", type(error).__name__, error)
            return 0
        limit = NEAR if self._model.base.dtype == torch.float32 else 20 * NEAR
        pairs = zip(_flat(together), _flat(apart), strict=True)
        if not all(abs(one - other) <= limit * max(1.0, abs(other)) for one, other in pairs):
            return 0
        return min([LONGEST_ROW, *(window for window in windows if window is not None)])

    def _row(self, group: list[Scored]) -> list[LogProbs]:
        """All texts of the group in one row of tokens."""
        common = _common(group) if len(group) > 1 else 0
        ids = list(group[0].prompt[:common])
        positions = list(range(common))
        # Of a piece: the first token of its prompt behind the common ones, the prompt's end, its own first and end.
        spans: list[tuple[int, int, int, int]] = []
        wanted: list[list[tuple[list[int], Ids]]] = []  # rows of logits and the tokens they predict
        for scored in group:
            start, end = len(ids), len(ids) + len(scored.prompt) - common
            ids += scored.prompt[common:]
            positions += range(common, len(scored.prompt))
            spans.append((start, start, start, end))
            wanted.append([])
            for tokens in scored.continuations:
                first = len(ids)
                ids += tokens[:-1]
                positions += range(len(scored.prompt), len(scored.prompt) + len(tokens) - 1)
                spans.append((start, end, first, len(ids)))
                wanted[-1].append(([end - 1, *range(first, len(ids))], tokens))
        seen = torch.zeros(len(ids), len(ids), dtype=torch.bool)
        for prompt, prompt_end, start, end in spans:
            seen[start:end, :common] = True
            seen[start:end, prompt:prompt_end] = True
            seen[start:end, start:end] = _causal(end - start)
        seen[:common, :common] = _causal(common)
        keep = sorted({at for pieces in wanted for rows, _ in pieces for at in rows})
        logits = self._logits(group[0].adapter, ids, keep, positions, seen)
        number = {at: row for row, at in enumerate(keep)}
        return [
            [_of_tokens(logits[[number[at] for at in rows]], tokens, scored.top) for rows, tokens in pieces]
            for scored, pieces in zip(group, wanted, strict=True)
        ]

    def _one_by_one(self, scored: Scored) -> LogProbs:
        """A pass for each text; continuations of one token share that of the prompt."""
        values: dict[Ids, list[Pick]] = {}
        last = len(scored.prompt) - 1
        by_read: dict[Ids, list[Ids]] = {}
        for tokens in scored.continuations:
            by_read.setdefault(tokens[:-1], []).append(tokens)
        for read, texts in by_read.items():
            ids = [*scored.prompt, *read]
            values.update((tokens, []) for tokens in texts)
            for first in range(last, len(ids), BLOCK):  # so that long texts need no memory for the logits of all
                rows = range(first, min(first + BLOCK, len(ids)))
                logits = self._logits(scored.adapter, ids, list(rows), images=scored.images, prompt=last + 1)
                for tokens in texts:
                    values[tokens] += _of_tokens(logits, tokens[first - last : first - last + BLOCK], scored.top)
        return [values[tokens] for tokens in scored.continuations]

    @torch.inference_mode()
    def _logits(
        self,
        adapter: str | None,
        ids: list[int],
        keep: list[int],
        positions: list[int] | None = None,
        seen: Tensor | None = None,
        images: ImagePrompt | None = None,
        prompt: int = 0,
    ) -> Tensor:
        """The logits behind the tokens numbered `keep`, (kept, vocabulary). Raises SwiftError where they are NaN.

        `prompt` is how many tokens an encoder reads, where the model has one.
        """
        self._rope.settle(len(ids))
        device = self._model.base.device
        rows = torch.tensor(keep, device=device)
        inputs: dict[str, Tensor] = {"input_ids": torch.tensor([ids], device=device)}
        if positions is not None and seen is not None:
            inputs["position_ids"] = torch.tensor([positions], device=device)
            inputs["attention_mask"] = seen[None, None].to(device)
        if self._opening:
            rows = rows - prompt + len(self._opening)
            inputs = split_inputs(ids, prompt, self._opening, device, self._model.base.dtype, images)
        elif images is not None:
            inputs["position_ids"] = images.positions(0, len(ids)).to(device)
            inputs |= images.moved(device, self._model.base.dtype, len(ids))
        if self._keeps:
            inputs["logits_to_keep"] = rows
        output = self._model.whole(adapter, use_cache=False, **inputs)
        logits = output.logits[0] if self._keeps else output.logits[0, rows]
        if not logits.isfinite().any(-1).all():
            raise SwiftError("the model's logits are not numbers (NaN)", next="check the weights, or --dtype")
        return logits.float()


def _of_tokens(logits: Tensor, tokens: Ids, top: int) -> list[Pick]:
    """Each token with its log-probability, by the row of logits that predicts it, and the likeliest in its place."""
    chosen = torch.tensor(tokens, device=logits.device)[:, None]
    log_probs = logits.log_softmax(-1)
    values: list[float] = log_probs.gather(1, chosen)[:, 0].tolist()
    if not top:
        return [Pick(token, value) for token, value in zip(tokens, values, strict=True)]
    best = log_probs.topk(min(top, log_probs.shape[-1]))
    likeliest = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    pairs = [tuple(zip(ids, numbers, strict=True)) for ids, numbers in likeliest]
    return [Pick(token, value, each) for token, value, each in zip(tokens, values, pairs, strict=True)]


def _causal(size: int) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool).tril()


def _common(group: Sequence[Scored]) -> int:
    """How many tokens all prompts begin with; each has one more at least, which predicts its continuations."""
    least, most = min(scored.prompt for scored in group), max(scored.prompt for scored in group)
    same = next((at for at, (one, other) in enumerate(zip(least, most, strict=False)) if one != other), len(least))
    return min(same, *(len(scored.prompt) - 1 for scored in group))


def _flat(values: list[LogProbs]) -> list[float]:
    return [pick.logprob or 0.0 for texts in values for text in texts for pick in text]


def _settle(scored: Scored, outcome: LogProbs | Exception) -> None:
    if not scored.result.set_running_or_notify_cancel():
        return
    if isinstance(outcome, Exception):
        scored.result.set_exception(outcome)
    else:
        scored.result.set_result(outcome)
