"""Answers as server-sent events: chunks, their token counts, the end, and what happens when the client goes away."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from swift.serving.errors import ApiError, envelope
from swift.serving.running_request import Job
from swift.serving.schema import Generation


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
