"""The body of an answer: choices, log-probabilities, events of a stream."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from swift.engines.base import TokenLogprob
from swift.serving.errors import ApiError, envelope
from swift.serving.running_request import Job
from swift.serving.schema import ChatLogprobs, CompletionLogprobs, Generation, TopLogprob
from swift.serving.token_bytes import TokenBytes, characters

LOWEST = -9999.0
"""Stands for a log-probability of minus infinity, which JSON cannot say; OpenAI uses the same number."""


class EventStream(StreamingResponse):
    """Server-sent events made from `source`, which is closed at once when the client goes away, wherever it waits."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str, None], source: AsyncGenerator[Any, None], request_id: str):
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", "X-Request-Id": request_id}
        super().__init__(events, headers=headers)
        self._events = events
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events, then close their source; not inside the task group that a lost client cancels."""
        async with aclosing(self._source), aclosing(self._events):
            await super().__call__(scope, receive, send)


class Chunks:
    """Makes the events of one stream. Token counts come where `stream_options` or the server's own flag say."""

    def __init__(self, job: Job, body: Generation, object_name: str):
        self._job = job
        self._head = {"id": job.id, "object": object_name, "created": job.created, "model": job.model}
        options = body.stream_options
        self._each = job.service.plan.counts_every_chunk if options is None else options.continuous_usage_stats
        self._end = options is not None and options.include_usage

    def choice(self, choice: Mapping[str, Any]) -> str:
        """One piece of one choice."""
        return self._event([choice], self._job.usage() if self._each else None)

    def end(self) -> Iterable[str]:
        """The closing events."""
        if self._end:
            yield self._event([], self._job.usage())
        yield "data: [DONE]\n\n"

    def failure(self, error: ApiError) -> Iterable[str]:
        """The answer broke off after its first piece was sent."""
        yield _event(envelope(error))
        yield "data: [DONE]\n\n"

    def _event(self, choices: Sequence[Mapping[str, Any]], usage: Mapping[str, Any] | None) -> str:
        body: dict[str, Any] = {**self._head, "choices": choices}
        if usage is not None or self._end:
            body["usage"] = usage
        return _event(body)


def _event(body: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"


class Logprobs:
    """Writes the log-probabilities of one answer, piece by piece; `spaced` where it keeps the space in front of it."""

    def __init__(self, token_bytes: TokenBytes, *, spaced: bool = False):
        self._bytes = token_bytes
        self._begun = spaced
        self._characters = 0

    def chat(self, tokens: Sequence[TokenLogprob]) -> ChatLogprobs:
        """The next tokens in the form of chat answers."""
        return {
            "content": [
                {
                    "token": token.token,
                    "logprob": max(token.logprob, LOWEST),
                    "bytes": None if own is None else list(own),
                    "top_logprobs": [self._likely(*likely) for likely in token.top],
                }
                for token, own in zip(tokens, self._next(tokens), strict=True)
            ]
        }

    def older(self, tokens: Sequence[TokenLogprob]) -> CompletionLogprobs:
        """The next tokens in the form of /v1/completions, with the character of the answer that each begins in."""
        offsets = []
        for own in self._next(tokens):
            inside = own is not None and characters(own[:1]) < len(own[:1])
            offsets.append(max(0, self._characters - inside))
            self._characters += characters(own or b"")
        return {
            "tokens": [self._name(token.token, token.token_id) for token in tokens],
            "token_logprobs": [max(token.logprob, LOWEST) for token in tokens],
            "top_logprobs": [
                {self._name(text, token_id): max(logprob, LOWEST) for text, token_id, logprob in token.top}
                for token in tokens
            ],
            "text_offset": offsets,
        }

    def _next(self, tokens: Sequence[TokenLogprob]) -> list[bytes | None]:
        first, self._begun = not self._begun, True
        return self._bytes.of_answer(tokens, first=first)

    def _likely(self, text: str, token_id: int, logprob: float) -> TopLogprob:
        own = self._bytes.of(token_id, text)
        return {"token": text, "logprob": max(logprob, LOWEST), "bytes": None if own is None else list(own)}

    def _name(self, text: str, token_id: int) -> str:
        """The token's text; its bytes where it is a part of a character, or two such tokens would be one key."""
        own = self._bytes.of(token_id, text)
        if own is None or own.decode("utf-8", "replace").encode() == own:
            return text
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in own)
