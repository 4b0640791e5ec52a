"""The model behind the routes: loaded or not yet, its names, and the way from a conversation to token ids."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from swift.core.errors import SwiftError
from swift.engines.base import Engine
from swift.plan.serve import Defaults, ServePlan
from swift.prompts.encode import Encoder, TooLong
from swift.prompts.types import Conversation
from swift.serving.admission import Gate
from swift.serving.errors import ApiError
from swift.serving.metrics import Metrics
from swift.serving.schema import ModelCard
from swift.serving.token_bytes import TokenBytes

T = TypeVar("T")

BODY_BASE = 2**20
BODY_PER_TOKEN = 64
"""Bytes of JSON a token may take: the limit of a request's size follows the context length of the model."""


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to answer."""

    engine: Engine
    encoder: Encoder
    defaults: Defaults

    @cached_property
    def token_bytes(self) -> TokenBytes:
        """The bytes behind the engine's tokens."""
        return TokenBytes(self.engine.tokenizer)


class Service:
    """What all routes share. It exists before the model is loaded, so that /health can say so."""

    def __init__(self, plan: ServePlan):
        self.plan = plan
        self.gate = Gate(plan.max_in_flight)
        self.metrics = Metrics(self._gauges)
        self.created = int(time.time())
        self._loaded: Loaded | None = None
        # One thread for all: tokenizers are not made for several at once, and the event loop must not wait for them.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")

    def open(self, loaded: Loaded) -> None:
        """Answer from now on."""
        self._loaded = loaded

    @property
    def status(self) -> str:
        """`ok`, `loading` or `draining`."""
        if self.gate.draining:
            return "draining"
        return "ok" if self._loaded else "loading"

    @property
    def loaded(self) -> Loaded:
        """The model. Raises ApiError 503 before it is there."""
        if self._loaded is None:
            raise ApiError(503, "The model is still being loaded.", code="loading")
        return self._loaded

    @property
    def max_body_bytes(self) -> int:
        """The largest request that is read."""
        length = self._loaded.engine.max_model_len if self._loaded else 0
        return BODY_BASE + BODY_PER_TOKEN * length

    @property
    def model_names(self) -> tuple[str, ...]:
        """The base model's name and those of the adapters."""
        return (self.plan.model_name, *self.loaded.engine.adapters)

    def adapter(self, model: str) -> str | None:
        """The adapter that `model` names; None is the base. Raises ApiError 404 for a name that is not served."""
        if model == self.plan.model_name:
            return None
        if model in self.loaded.engine.adapters:
            return model
        message = f"`{model}` is not in the model_list: `{list(self.model_names)}`."
        raise ApiError(404, message, param="model", code="model_not_found")

    def cards(self) -> list[ModelCard]:
        """What /v1/models shows."""
        return [
            {
                "id": name,
                "object": "model",
                "created": self.created,
                "owned_by": self.plan.owned_by,
                "is_chat": self.plan.is_chat,
                "is_multimodal": self.plan.is_multimodal,
                "max_model_len": self.loaded.engine.max_model_len,
                "root": self.plan.model_name,
                "parent": None if name == self.plan.model_name else self.plan.model_name,
            }
            for name in self.model_names
        ]

    async def chat_prompt(self, talk: Conversation, begun: str) -> tuple[int, ...]:
        """The prompt of a conversation, with the beginning of the answer when the client gave one."""
        return await self._apart(self._encode_chat, talk, begun)

    def ends(self, tools: bool) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Texts and token ids that end any answer; with `tools` those of the tool format too."""
        encoder = self.loaded.encoder
        return encoder.stop_strings + (encoder.tool_stop_strings if tools else ()), encoder.stop_token_ids

    async def text_prompt(self, text: str) -> tuple[int, ...]:
        """The token ids of plain text, with the special tokens the tokenizer puts around it."""
        ids = await self._apart(lambda: self.loaded.engine.tokenizer(text)["input_ids"])
        return tuple(ids)

    def known_ids(self, ids: Sequence[int], param: str) -> tuple[int, ...]:
        """Token ids as the client sent them. Raises ApiError for one that the vocabulary does not have."""
        size = len(self.loaded.engine.tokenizer)
        if max(ids) >= size:
            raise ApiError(400, f"Token {max(ids)} is not in the vocabulary of {size}.", param=param)
        return tuple(ids)

    def room(self, prompt: tuple[int, ...], param: str) -> int:
        """Tokens left for the answer. Raises ApiError when the prompt is empty or leaves none."""
        length = self.loaded.engine.max_model_len
        if not prompt:
            raise ApiError(400, "The prompt is empty.", param=param)
        if len(prompt) >= length:
            message = f"The prompt has {len(prompt)} tokens; the model's context holds {length}, the answer included."
            raise ApiError(400, message, param=param, code="context_length_exceeded")
        return length - len(prompt)

    def _encode_chat(self, talk: Conversation, begun: str) -> tuple[int, ...]:
        try:
            encoded = self.loaded.encoder.encode(talk, inference=True)
        except TooLong as error:
            raise ApiError(400, error.what, param="messages", code="context_length_exceeded") from error
        except SwiftError as error:
            raise ApiError(400, " ".join(filter(None, (error.what, error.why))), param="messages") from error
        ids = encoded[-1].input_ids
        if begun:
            ids = ids + self.loaded.engine.tokenizer(begun, add_special_tokens=False)["input_ids"]
        return tuple(ids)

    async def _apart(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    def _gauges(self) -> dict[str, float]:
        engine = self._loaded.engine.statistics() if self._loaded else {}
        return {"in_flight": self.gate.answers, **engine}

    async def close(self) -> None:
        """Give the engine's memory back."""
        self._thread.shutdown(wait=False)
        if self._loaded:
            await self._loaded.engine.close()
