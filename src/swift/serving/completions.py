"""POST /v1/completions: plain text in, its continuation out."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from swift.core.log import log
from swift.engines.base import Delta, TokenLogprob
from swift.serving.errors import ApiError
from swift.serving.logprobs import Logprobs
from swift.serving.messages import shown
from swift.serving.running_request import Collected, Job, best, collect, until_gone
from swift.serving.sampling_params import wants_top
from swift.serving.schema import ChatLogprobs, Completion, CompletionChoice, CompletionLogprobs, CompletionRequest
from swift.serving.service import Service
from swift.serving.streaming import Chunks, EventStream

CONTEXT = 8
"""Tokens of the prompt that are decoded with the answer's first one: enough to hold any character whole."""


async def completions(service: Service, http: HttpRequest, body: CompletionRequest) -> Response:
    """Continue one or several prompts, whole or as a stream. Raises ApiError."""
    job = Job(service=service, id=f"cmpl-{uuid.uuid4().hex}", model=body.model, prepared=await service.prepare(body))
    echoes = [service.text(ids) if body.echo else "" for ids in job.prompts]
    if service.plan.verbose:
        log.info("%s asked: %s", job.id, shown(body))
    if not body.stream:
        answer = await until_gone(http, _whole(job, body, echoes))
        return JSONResponse(answer, headers={"X-Request-Id": job.id})
    deltas = job.deltas()
    first = await until_gone(http, anext(deltas))
    return EventStream(_events(job, body, echoes, first, deltas), deltas, job.id)


async def _whole(job: Job, body: CompletionRequest, echoes: list[str]) -> Completion:
    choices: list[CompletionChoice] = []
    told = await job.log_probs() if body.echo and wants_top(body) else []
    if job.sampling.max_tokens:
        answers = best(await collect(job), body.n, job.sampling.n)
    else:
        answers = [Collected(finish_reason="length") for _ in range(len(job.prompts) * body.n)]
    for at, answer in enumerate(answers):
        space = _space(job, at // body.n, answer.token_ids)
        if told:
            writer = Logprobs(job.service.loaded.token_bytes, spaced=True)
            logprobs = _with_prompt(writer, told[at // body.n], answer.logprobs)
        else:
            writer = Logprobs(job.service.loaded.token_bytes, spaced=bool(space))
            logprobs = _logprobs(body, answer.logprobs, writer)
        choices.append(
            {
                "index": at,
                "text": echoes[at // body.n] + space + answer.text,
                "finish_reason": answer.finish_reason,
                "logprobs": logprobs,
            }
        )
    return {
        "id": job.id,
        "object": "text_completion",
        "created": job.created,
        "model": job.model,
        "choices": choices,
        "usage": job.usage(),
    }


async def _events(
    job: Job,
    body: CompletionRequest,
    echoes: list[str],
    first: tuple[int, Delta],
    rest: AsyncIterator[tuple[int, Delta]],
) -> AsyncGenerator[str, None]:
    chunks = Chunks(job, body, "text_completion")
    writers: dict[int, Logprobs] = {}

    def event(at: int, delta: Delta) -> str:
        text = delta.text
        if at not in writers:
            number = at // job.sampling.n
            space = _space(job, number, delta.token_ids)
            writers[at] = Logprobs(job.service.loaded.token_bytes, spaced=bool(space))
            text = echoes[number] + space + text
        logprobs = _logprobs(body, delta.logprobs, writers[at])
        return chunks.choice({"index": at, "text": text, "logprobs": logprobs, "finish_reason": delta.finish_reason})

    yield event(*first)
    try:
        async for at, delta in rest:
            yield event(at, delta)
    except ApiError as error:
        for line in chunks.failure(error):
            yield line
        return
    for line in chunks.end():
        yield line


def _space(job: Job, number: int, answer: Sequence[int]) -> str:
    """The space between prompt and answer that SentencePiece drops where a text begins, if there is one."""
    if not answer:
        return ""
    context = job.prompts[number][-CONTEXT:]
    before, alone, both = (job.service.text(ids, special=False) for ids in (context, answer[:1], [*context, answer[0]]))
    return " " if both == f"{before} {alone}" else ""


def _with_prompt(
    writer: Logprobs, prompt: Sequence[TokenLogprob], answer: Sequence[TokenLogprob]
) -> CompletionLogprobs:
    """Those of the prompt, whose first token nothing predicts, and of the answer behind it."""
    both = writer.older([*prompt, *answer])
    both["token_logprobs"][0] = both["top_logprobs"][0] = None
    return both


def _logprobs(
    body: CompletionRequest, tokens: Sequence[TokenLogprob], writer: Logprobs
) -> CompletionLogprobs | ChatLogprobs | None:
    """OpenAI's form for a number, the form of the 2.5 release for `true`."""
    if not wants_top(body) or not tokens:
        return None
    return writer.chat(tokens) if body.logprobs is True else writer.older(tokens)
