"""The FastAPI application over one service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

from swift.core.log import log
from swift.serving import errors
from swift.serving.chat_completions import chat_completions
from swift.serving.completions import completions
from swift.serving.embeddings import embeddings
from swift.serving.errors import ApiError
from swift.serving.middleware import Guards
from swift.serving.reading_schema import EmbeddingRequest, Embeddings, ScoreRequest, Scores
from swift.serving.running_request import ClientGone
from swift.serving.schema import (
    ChatCompletion,
    ChatRequest,
    Completion,
    CompletionRequest,
    ErrorEnvelope,
    Health,
    ModelCard,
    ModelList,
    Version,
)
from swift.serving.scores import scores
from swift.serving.service import Service

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorEnvelope, "description": text}
    for status, text in (
        (400, "The request cannot be answered"),
        (401, "The key is missing or wrong"),
        (404, "No such model"),
        (408, "The body came too slowly"),
        (413, "The request is too large"),
        (422, "A field is missing or of the wrong type"),
        (429, "The queue is full"),
        (503, "Loading or shutting down"),
    )
}


def create_app(service: Service) -> FastAPI:
    """The server's application. Closing it closes the service and its engine."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        statistics = asyncio.create_task(_log_statistics(service))
        yield
        statistics.cancel()
        await service.close()

    app = FastAPI(
        title="swift",
        version=version("swift-llm"),
        description="OpenAI-compatible answers from a plain or tuned model.",
        lifespan=lifespan,
        responses=_ERRORS,
        redirect_slashes=False,
    )
    app.add_middleware(Guards, service=service)
    if service.plan.allowed_origins:
        # Outermost: browsers ask before they send the key, and read errors too.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.plan.allowed_origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    _handle_errors(app, service)
    _add_answers(app, service)
    _add_state(app, service)
    return app


def _add_answers(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions", responses=_streamed(ChatCompletion), tags=["answers"])
    async def create_chat_completion(body: ChatRequest, http: Request) -> Response:
        """Answer a conversation."""
        return await chat_completions(service, http, body)

    @app.post("/v1/completions", responses=_streamed(Completion), tags=["answers"])
    async def create_completion(body: CompletionRequest, http: Request) -> Response:
        """Continue plain text."""
        return await completions(service, http, body)

    @app.post("/v1/embeddings", response_model=Embeddings, tags=["answers"])
    async def create_embeddings(body: EmbeddingRequest, http: Request) -> Response:
        """The vector of each text: the normalised last hidden state of its last token."""
        return await embeddings(service, http, body)

    @app.post("/v1/score", response_model=Scores, tags=["answers"])
    async def create_score(body: ScoreRequest, http: Request) -> Response:
        """What a reward model thinks of answers: a number for each, at the end of the answer."""
        return await scores(service, http, body)


def _streamed(model: Any) -> dict[int | str, dict[str, Any]]:
    content = {"text/event-stream": {"schema": {"type": "string"}}}
    return {200: {"model": model, "description": "The answer; events when `stream` is true", "content": content}}


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", response_model=ModelList, tags=["models"])
    async def list_models() -> JSONResponse:
        """The names that `model` may have."""
        return JSONResponse({"object": "list", "data": service.cards()})

    @app.get("/v1/models/{model:path}", response_model=ModelCard, tags=["models"])
    async def retrieve_model(model: str) -> JSONResponse:
        """One of them."""
        service.adapter(model)
        return JSONResponse(next(card for card in service.cards() if card["id"] == model))

    @app.get("/health", response_model=Health, tags=["state"])
    async def health() -> JSONResponse:
        """200 once the model answers, 503 while it is loaded and while the server shuts down."""
        if service.status != "ok":
            raise ApiError(503, f"The server is {service.status}.", code=service.status)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", tags=["state"], responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
    async def metrics() -> Response:
        """Counters, gauges and histograms for Prometheus."""
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @app.get("/version", response_model=Version, tags=["state"])
    async def show_version() -> JSONResponse:
        """The version of this server."""
        return JSONResponse({"version": version("swift-llm")})


def _handle_errors(app: FastAPI, service: Service) -> None:
    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return errors.response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return errors.response(errors.from_validation(error.errors(), error.body))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:  # of which FastAPI says no more
            return errors.response(errors.unread_body(error.__cause__))
        message = f"{error.detail}: {request.method} {request.url.path}" if error.status_code == 404 else error.detail
        answer = errors.response(ApiError(error.status_code, f"{message}.", param=_param(error.status_code)))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(ClientGone)
    async def gone(_: Request, error: ClientGone) -> Response:
        return Response(status_code=499)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        # This answer is made outside the guards, which count the others.
        service.metrics.requests.labels(request.url.path, "500").inc()
        return errors.response(ApiError(500, "The server failed; its log says more.", code="internal_error"))


def _param(status: int) -> str | None:
    return {404: "path", 405: "method"}.get(status)


async def _log_statistics(service: Service) -> None:
    interval = service.plan.log_interval
    while interval > 0:
        await asyncio.sleep(interval)
        statistics = service.metrics.statistics()
        if statistics is not None:
            log.info(statistics)
