"""An engine whose answers are known: it repeats the last user turn or follows a script. For tests of the surfaces."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from swift.engines.base import NOTHING_SHOWN, Delta, NoLogProbs, Request, TokenLogprob
from swift.prompts.types import Encoded, Media


class ScriptedEngine:
    """Answers each prompt with `reply(prompt text)`, token by token, `pause` seconds apart.

    It counts the answers under way, so that a test sees whether a place was given back; while `go_on` is cleared it
    holds its next token back.
    """

    max_model_len = 512

    def __init__(self, tokenizer: Any, reply: Any = None, *, pause: float = 0.0, adapters: tuple[str, ...] = ()):
        self.tokenizer = tokenizer
        self.adapters = adapters
        self.reply = reply or last_user
        self.pause = pause
        self.vectors = True
        self.running = 0
        self.requests: list[Request] = []
        self.scored: list[str] = []
        self.closed = False
        self.go_on = threading.Event()
        self.go_on.set()

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        self.requests.append(request)
        prompt = self.tokenizer.decode(request.prompt_ids)
        ids = self.tokenizer(self.reply(prompt), add_special_tokens=False)["input_ids"]
        limit = request.sampling.max_tokens
        self.running += 1
        try:
            for token in ids[:limit]:
                await asyncio.sleep(self.pause)
                while not self.go_on.is_set() and not self.closed:
                    await asyncio.sleep(0.01)
                if self.closed:
                    for index in range(request.sampling.n):
                        yield Delta(request_id=request.id, index=index, finish_reason="abort")
                    return
                for index in range(request.sampling.n):
                    yield self._delta(request, index, token)
            for index in range(request.sampling.n):
                reason = "length" if len(ids) > limit else "stop"
                yield Delta(request_id=request.id, index=index, finish_reason=reason)
        finally:
            self.running -= 1

    def _delta(self, request: Request, index: int, token: int) -> Delta:
        text = self.tokenizer.decode([token])
        logprobs = ()
        if request.sampling.logprobs is not None:
            top = tuple((text, token, -0.5) for _ in range(request.sampling.logprobs))
            logprobs = (TokenLogprob(text, token, float("-inf") if text == "!" else -0.5, top),)
        return Delta(request_id=request.id, index=index, text=text, token_ids=(token,), logprobs=logprobs)

    async def log_probs(
        self,
        prompt_ids: tuple[int, ...],
        continuations: Sequence[tuple[int, ...]],
        adapter: str | None = None,
        top: int = 0,
        media: Media = NOTHING_SHOWN,
    ) -> list[list[TokenLogprob]]:
        """Refused, as by an engine that does not tell."""
        raise NoLogProbs("a script")

    @property
    def reader(self) -> ScriptedEngine | None:
        return self if self.vectors else None

    async def embed(self, texts: Sequence[tuple[int, ...]], adapter: str | None = None) -> list[list[float]]:
        return [[float(len(ids)), 0.5 if adapter is None else -0.5] for ids in texts]

    async def score(self, answers: Sequence[Encoded], adapter: str | None = None) -> list[float]:
        self.scored = [self.tokenizer.decode(answer.input_ids) for answer in answers]
        return [len(answer.input_ids) - 20.0 for answer in answers]

    async def add_adapter(self, name: str, folder: str) -> None:
        self.adapters = (*self.adapters, name)

    def statistics(self) -> dict[str, float]:
        return {"running": self.running, "waiting": 0, "kv_used": 0.0}

    async def close(self) -> None:
        self.closed = True


def last_user(prompt: str) -> str:
    """The text of the last user turn of a ChatML prompt, or the whole prompt when it has none."""
    _, mark, turn = prompt.rpartition("<|im_start|>user\n")
    return turn.split("<|im_end|>")[0] if mark else prompt
