"""POST /v1/score: what a reward model thinks of answers."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Sequence

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from swift.core.log import log
from swift.serving.embeddings import read
from swift.serving.errors import ApiError
from swift.serving.messages import shown
from swift.serving.reading_schema import ScoreRequest, ScoreUsage
from swift.serving.running_request import until_gone
from swift.serving.schema import ChatRequest, JsonObject
from swift.serving.service import Service


async def scores(service: Service, http: HttpRequest, body: ScoreRequest) -> Response:
    """The score of each answer, in their order, at its last token as in training. Raises ApiError."""
    adapter = service.judge(body.model)
    if service.plan.verbose:
        log.info("scores asked: %s", shown(body))
    if body.truncate_prompt_tokens is not None:
        raise ApiError(400, "Nothing is cut off an answer or its prompt.", param="truncate_prompt_tokens")
    conversations, param = _conversations(body)
    answers = [await until_gone(http, service.answer(conversation, param)) for conversation in conversations]
    tokens = sum(len(answer.input_ids) for answer in answers)
    values = await read(service, http, service.reader().score(answers, adapter), tokens, param)
    if body.use_activation:
        values = [_sigmoid(value) for value in values]
    usage: ScoreUsage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
    return JSONResponse(
        {
            "id": f"score-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": body.model,
            "data": [{"index": at, "object": "score", "score": value} for at, value in enumerate(values)],
            "usage": usage,
        }
    )


def _conversations(body: ScoreRequest) -> tuple[Sequence[ChatRequest], str]:
    """A conversation for each answer, and the field to blame for one that cannot be read. Raises ApiError."""
    if body.messages is not None:
        for field, given in (("text_1", body.text_1), ("text_2", body.text_2)):
            if given is not None:
                raise ApiError(400, f"`messages` stand alone, without `{field}`.", param=field)
        return [_chat(body, [message.model_dump(exclude_unset=True) for message in body.messages])], "messages"
    if body.text_1 is None or body.text_2 is None:
        missing = "text_1" if body.text_1 is None else "text_2"
        raise ApiError(422, "Send `text_1` (prompts) and `text_2` (answers), or `messages`.", param=missing)
    prompts = [body.text_1] if isinstance(body.text_1, str) else body.text_1
    answers = [body.text_2] if isinstance(body.text_2, str) else body.text_2
    if len(prompts) not in (1, len(answers)):
        message = f"{len(prompts)} prompts and {len(answers)} answers: one prompt for all of them, or one for each."
        raise ApiError(400, message, param="text_1")
    if len(prompts) < len(answers):
        prompts = prompts * len(answers)
    return [
        _chat(body, [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}])
        for prompt, answer in zip(prompts, answers, strict=True)
    ], "text_2"


def _chat(body: ScoreRequest, messages: Sequence[JsonObject]) -> ChatRequest:
    tools = [tool.model_dump(exclude_unset=True) for tool in body.tools or ()]
    return ChatRequest.model_validate({"model": body.model, "messages": messages, "tools": tools or None})


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
