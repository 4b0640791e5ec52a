"""Vectors of texts, and scores of answers: what the last hidden state of a text's last token gives.

A vector is that state, normalised; a score is what a value head makes of it. Both are computed between the steps of the
answers under way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.engines.adapter_pool import AdaptedModel
from swift.engines.dynamic_rope import DynamicRope
from swift.engines.image_prompt import ImagePrompt
from swift.engines.runner_probe import reads_in_stretches
from swift.models.value_head import ValueHead

Vector = list[float]


@dataclass(eq=False)
class _Texts:
    """The texts of one request: what is done, and how far the text that is being read has come."""

    token_ids: Sequence[tuple[int, ...]]
    adapter: str | None
    head: ValueHead | None
    result: Future[list[Vector]]
    shown: Sequence[ImagePrompt | None] = ()
    """What is shown in each text; such a text is read in one stretch. Empty where nothing is."""
    vectors: list[Vector] = field(default_factory=list)
    read: int = 0
    cache: Any = None


class Vectors:
    """The requests for vectors. Every method runs in the thread that owns the model.

    A text is read by itself, so that its vector does not depend on what came with it; requests take turns, so that a
    list of a thousand texts does not hold up a single one. `chunk` is the most tokens read at once, where the model
    takes a text in stretches; None is any number. `max_length` is the longest text.
    """

    def __init__(self, model: AdaptedModel, chunk: int | None, max_length: int):
        self._model = model
        self._chunk = chunk
        self._max_length = max_length
        self._rope = DynamicRope(model.base)
        self._waiting: deque[_Texts] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(
        self,
        token_ids: Sequence[tuple[int, ...]],
        adapter: str | None,
        result: Future[list[Vector]],
        head: ValueHead | None = None,
        shown: Sequence[ImagePrompt | None] = (),
    ) -> None:
        """Queue the texts of one request; `result` takes their vectors, or what went wrong.

        With a `head` each vector is one number, the text's score.
        """
        self._waiting.append(_Texts(token_ids, adapter, head, result, shown))

    def step(self) -> None:
        """Read the next stretch of a text. A mistake ends its request and nothing else."""
        texts = self._waiting.popleft()
        if texts.result.cancelled():
            return
        try:
            self._read(texts)
        except Exception as error:  # memory, a driver: the answers that run beside it go on
            log.exception("the vectors of a text were not computed")
            if texts.result.set_running_or_notify_cancel():
                texts.result.set_exception(error)
            return
        if len(texts.vectors) < len(texts.token_ids):
            self._waiting.append(texts)
        elif texts.result.set_running_or_notify_cancel():
            texts.result.set_result(texts.vectors)

    def end(self) -> None:
        """The engine stops: nobody waits for vectors any more."""
        while self._waiting:
            self._waiting.popleft().result.cancel()

    @cached_property
    def _stretch(self) -> int | None:
        """Tried when the first long text comes: answers of a model on slots never use its own cache."""
        return self._chunk if self._chunk and reads_in_stretches(self._model, self._max_length) else None

    def _read(self, texts: _Texts) -> None:
        tokens = texts.token_ids[len(texts.vectors)]
        images = texts.shown[len(texts.vectors)] if texts.shown else None
        stretch = None if images or self._chunk is None or len(tokens) <= self._chunk else self._stretch
        end = len(tokens) if stretch is None else min(len(tokens), texts.read + stretch)
        self._rope.settle(end)
        new = torch.tensor([tokens[texts.read : end]], device=self._model.base.device)
        given: dict[str, Any] = {"position_ids": torch.arange(texts.read, end, device=new.device)[None]}
        if images is not None:
            given = {"position_ids": images.places.to(new.device), **images.moved(new.device, self._model.base.dtype)}
        cached = {"use_cache": False} if stretch is None else {"use_cache": True, "past_key_values": texts.cache}
        output = self._model.read(texts.adapter, input_ids=new, **given, **cached)
        if end < len(tokens):
            texts.read, texts.cache = end, output.past_key_values
            return
        state = output.last_hidden_state[0, -1].float()
        if not state.isfinite().all():
            raise SwiftError(
                "the model's states are not numbers (NaN or infinite)", next="check the weights, or --dtype"
            )
        vector = torch.nn.functional.normalize(state, dim=0) if texts.head is None else texts.head(state)[None]
        texts.vectors.append(vector.tolist())
        texts.read, texts.cache = 0, None
