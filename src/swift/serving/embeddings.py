"""POST /v1/embeddings: a vector for each text, from engines that give them."""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.serving.errors import ApiError
from swift.serving.messages import shown
from swift.serving.reading_schema import EmbeddingRequest, EmbeddingUsage
from swift.serving.running_request import until_gone
from swift.serving.service import Service

T = TypeVar("T")


async def embeddings(service: Service, http: HttpRequest, body: EmbeddingRequest) -> Response:
    """The vectors of the texts, in their order. Raises ApiError."""
    adapter = service.writer(body.model)
    if service.plan.verbose:
        log.info("embeddings asked: %s", shown(body))
    texts = [await _token_ids(service, text, at) for at, text in enumerate(_texts(body))]
    tokens = sum(map(len, texts))
    vectors = await read(service, http, service.reader().embed(texts, adapter), tokens, "input")
    if body.dimensions not in (None, len(vectors[0])):
        # Cutting a vector means something only for models that were trained for it, and nothing says which were.
        message = f"This model's vectors have {len(vectors[0])} dimensions and cannot be shortened."
        raise ApiError(400, message, param="dimensions")
    usage: EmbeddingUsage = {"prompt_tokens": tokens, "total_tokens": tokens}
    data = [
        {"object": "embedding", "index": at, "embedding": _written(vector, body.encoding_format)}
        for at, vector in enumerate(vectors)
    ]
    return JSONResponse({"object": "list", "data": data, "model": body.model, "usage": usage})


async def read(service: Service, http: HttpRequest, work: Awaitable[T], tokens: int, param: str) -> T:
    """What the engine makes of the texts of a request, which have `tokens`. Raises ApiError."""
    started = time.monotonic()
    # One place for the whole request: its texts are read one after the other.
    with service.gate.seats(1):
        try:
            return await until_gone(http, work)
        except SwiftError as error:
            raise ApiError(400, error.reason, param=param) from error
        finally:
            service.metrics.duration.observe(time.monotonic() - started)
            service.metrics.answered(tokens, 0, 0)


def _texts(body: EmbeddingRequest) -> Sequence[str | Sequence[int]]:
    """One entry a text, whichever of the four forms was sent."""
    given = body.input
    if isinstance(given, str):
        return [given]
    return [given] if isinstance(given[0], int) else given  # type: ignore[list-item,return-value]


async def _token_ids(service: Service, text: str | Sequence[int], at: int) -> tuple[int, ...]:
    ids = await service.text_ids(text, "input")
    longest = service.loaded.engine.max_model_len
    if not ids or not text:
        raise ApiError(400, f"Text {at} of the input is empty.", param="input")
    if len(ids) > longest:
        message = f"Text {at} of the input has {len(ids)} tokens; the model's context holds {longest}."
        raise ApiError(400, message, param="input", code="context_length_exceeded")
    return ids


def _written(vector: list[float], form: str) -> list[float] | str:
    """The numbers, or their 32-bit floats, lowest byte first, in base64: what OpenAI's own client asks for."""
    return vector if form == "float" else base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
