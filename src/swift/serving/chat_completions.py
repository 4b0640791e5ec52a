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
from swift.serving.messages import conversation, shown
from swift.serving.responses import Chunks, EventStream, Logprobs
from swift.serving.running_request import Job, best, collect, until_gone
from swift.serving.sampling_params import answer_grammar, sampling
from swift.serving.schema import ChatChoice, ChatCompletion, ChatRequest
from swift.serving.service import Service
from swift.serving.tools import Reader, ToolUse, joined, reader, tool_use


async def chat_completions(service: Service, http: HttpRequest, body: ChatRequest) -> Response:
    """Answer a conversation, whole or as a stream. Raises ApiError."""
    use = tool_use(body)
    job = await _job(service, body, use)
    if service.plan.verbose:
        log.info("%s asked: %s", job.id, shown(body))
    if not body.stream:
        answer = await until_gone(http, _whole(job, body, use))
        return JSONResponse(answer, headers={"X-Request-Id": job.id})
    deltas = job.deltas()
    # The first delta is awaited here, so that whatever the engine refuses still has a status of its own.
    first = await until_gone(http, anext(deltas))
    return EventStream(_events(job, body, use, first, deltas), deltas, job.id)


async def _job(service: Service, body: ChatRequest, use: ToolUse) -> Job:
    adapter = service.adapter(body.model)
    if not service.plan.is_chat and len(body.messages) > 1:
        raise ApiError(
            400, "This model continues text and knows no turns. Please use the `completions` API.", param="messages"
        )
    grammar = answer_grammar(body)
    if grammar and use.mode != "none":
        message = '`response_format` and `tools` cannot be used together; set `tool_choice` to "none".'
        raise ApiError(400, message, param="response_format")
    talk, begun = conversation(body, use, is_multimodal=service.plan.is_multimodal)
    prompt = await service.chat_prompt(talk, begun)
    return Job(
        service=service,
        id=f"chatcmpl-{uuid.uuid4().hex}",
        model=body.model,
        prompts=[prompt],
        sampling=sampling(
            body,
            service.loaded.defaults,
            room=service.room(prompt, "messages"),
            vocabulary=len(service.loaded.engine.tokenizer),
            max_logprobs=service.plan.max_logprobs,
            grammar=use.grammar or grammar,
            ends=service.ends(use.mode == "auto"),
        ),
        adapter=adapter,
        media=talk.media,
        blame="tools" if use.grammar else "response_format" if grammar else None,
    )


async def _whole(job: Job, body: ChatRequest, use: ToolUse) -> ChatCompletion:
    choices: list[ChatChoice] = []
    for at, answer in enumerate(best(await collect(job), body.n, job.sampling.n)):
        content, deltas = _reader(job, use).feed(answer.text, last=True)
        calls = joined(deltas)
        choices.append(
            {
                "index": at,
                "message": {
                    "role": "assistant",
                    "content": content if content or not calls else None,
                    "tool_calls": calls or None,
                },
                "finish_reason": _finish(answer.finish_reason, bool(calls)),
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
    job: Job, body: ChatRequest, use: ToolUse, first: tuple[int, Delta], rest: AsyncIterator[tuple[int, Delta]]
) -> AsyncGenerator[str, None]:
    chunks = Chunks(job, body, "chat.completion.chunk")
    readers = [_reader(job, use) for _ in range(job.sampling.n)]
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
            if calls:
                piece["tool_calls"] = calls
            if piece:
                yield chunks.choice(_piece(at, piece, logprobs))
            if delta.finish_reason is not None:
                yield chunks.choice(_piece(at, {}, finish=_finish(delta.finish_reason, called[at])))
    except ApiError as error:
        for event in chunks.failure(error):
            yield event
        return
    for event in chunks.end():
        yield event


def _piece(at: int, delta: dict[str, Any], logprobs: object = None, finish: str | None = None) -> dict[str, Any]:
    return {"index": at, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def _reader(job: Job, use: ToolUse) -> Reader:
    return reader(use, job.service.loaded.encoder.parse_reply)


def _finish(reason: str, called: bool) -> str:
    return "tool_calls" if called and reason == "stop" else reason


async def _chained(
    first: tuple[int, Delta], rest: AsyncIterator[tuple[int, Delta]]
) -> AsyncIterator[tuple[int, Delta]]:
    yield first
    async for item in rest:
        yield item
