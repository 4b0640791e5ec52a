"""POST /v1/chat/completions."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from swift.core.log import log
from swift.engines.base import Delta
from swift.serving.errors import ApiError
from swift.serving.logprobs import Logprobs
from swift.serving.messages import shown
from swift.serving.running_request import Job, best, collect, until_gone
from swift.serving.schema import AnswerMessage, CallDelta, ChatChoice, ChatCompletion, ChatRequest
from swift.serving.service import Service
from swift.serving.streaming import Chunks, EventStream
from swift.serving.tools import Reader, joined, reader


async def chat_completions(service: Service, http: HttpRequest, body: ChatRequest) -> Response:
    """Answer a conversation, whole or as a stream. Raises ApiError."""
    # A client may hang up while an address keeps its request waiting.
    prepared = await until_gone(http, service.prepare(body))
    job = Job(service=service, id=f"chatcmpl-{uuid.uuid4().hex}", model=body.model, prepared=prepared)
    if service.plan.verbose:
        log.info("%s asked: %s", job.id, shown(body))
    if not body.stream:
        answer = await until_gone(http, _whole(job, body))
        return JSONResponse(answer, headers={"X-Request-Id": job.id})
    deltas = job.deltas()
    # The first delta is awaited here, so that whatever the engine refuses still has a status of its own.
    first = await until_gone(http, anext(deltas))
    return EventStream(_events(job, body, first, deltas), deltas, job.id)


async def _whole(job: Job, body: ChatRequest) -> ChatCompletion:
    choices: list[ChatChoice] = []
    for at, answer in enumerate(best(await collect(job), body.n, job.sampling.n)):
        content, deltas = _reader(job).feed(answer.text, last=True)
        calls = joined(deltas)
        choices.append(
            {
                "index": at,
                "message": _message(content, calls, older=job.prepared.use.older),
                "finish_reason": _finish(job, answer.finish_reason, bool(calls)),
                "logprobs": Logprobs(job.service.loaded.token_bytes).chat(answer.logprobs) if body.logprobs else None,
            }
        )
    return {
        "id": job.id,
        "object": "chat.completion",
        "created": job.created,
        "model": job.model,
        "choices": choices,
        "usage": job.usage(),
    }


async def _events(
    job: Job, body: ChatRequest, first: tuple[int, Delta], rest: AsyncIterator[tuple[int, Delta]]
) -> AsyncGenerator[str, None]:
    chunks = Chunks(job, body, "chat.completion.chunk")
    readers = [_reader(job) for _ in range(job.sampling.n)]
    writers = [Logprobs(job.service.loaded.token_bytes) for _ in range(job.sampling.n)]
    called = [False] * job.sampling.n
    for at in range(job.sampling.n):
        yield chunks.choice(_piece(at, {"role": "assistant", "content": ""}))
    try:
        async for at, delta in _chained(first, rest):
            content, calls = readers[at].feed(delta.text, last=delta.finish_reason is not None)
            called[at] = called[at] or bool(calls)
            logprobs = writers[at].chat(delta.logprobs) if body.logprobs and delta.logprobs else None
            piece: dict[str, Any] = {"content": content} if content or (logprobs and not calls) else {}
            for more in ([piece] if piece else []) + _pieces(calls, older=job.prepared.use.older):
                yield chunks.choice(_piece(at, more, logprobs))
                logprobs = None
            if delta.finish_reason is not None:
                yield chunks.choice(_piece(at, {}, finish=_finish(job, delta.finish_reason, called[at])))
    except ApiError as error:
        for event in chunks.failure(error):
            yield event
        return
    for event in chunks.end():
        yield event


def _piece(at: int, delta: dict[str, Any], logprobs: object = None, finish: str | None = None) -> dict[str, Any]:
    return {"index": at, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def _message(content: str, calls: list[CallDelta], *, older: bool) -> AnswerMessage:
    message: AnswerMessage = {
        "role": "assistant",
        "content": content if content or not calls else None,
        "tool_calls": None if older else calls or None,
    }
    if older:
        message["function_call"] = calls[0].get("function") if calls else None
    return message


def _pieces(calls: list[CallDelta], *, older: bool) -> list[dict[str, Any]]:
    """The deltas of calls, one after the other: some clients keep one piece of a call from each event."""
    return [{"function_call": call.get("function")} if older else {"tool_calls": [call]} for call in calls]


def _reader(job: Job) -> Reader:
    return reader(job.prepared.use, job.prepared.syntax, thinking=job.prepared.thinking)


def _finish(job: Job, reason: str, called: bool) -> str:
    if not called or reason != "stop":
        return reason
    return "function_call" if job.prepared.use.older else "tool_calls"


async def _chained(
    first: tuple[int, Delta], rest: AsyncIterator[tuple[int, Delta]]
) -> AsyncIterator[tuple[int, Delta]]:
    yield first
    async for item in rest:
        yield item
