"""What stands before the routes: the key, the size and speed of a request, clients that stop reading."""

from __future__ import annotations

import asyncio
import hmac
import time
from contextlib import nullcontext

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from swift.core.log import log
from swift.serving.errors import ApiError, response
from swift.serving.service import Service

BODY_SECONDS = 30.0
"""A body must have come in whole after this time."""
SEND_SECONDS = 60.0
"""A client that takes nothing of its answer for so long is gone."""
OPEN_ROUTES = ("/health",)
"""Answered without a key: load balancers have none."""


class _Stalled(Exception):
    """The client stopped reading."""


class Guards:
    """ASGI middleware: counts every request, refuses the ones without the key, and hands on whole bodies only."""

    def __init__(self, app: ASGIApp, service: Service):
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or answer it with the reason why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = _as_meant(scope)
        send = self._counted(scope, send)
        try:
            self._check_key(scope)
            _refuse_compressed(Headers(scope=scope))
            # Only answers are drained: /health and /metrics go on to the end.
            with self._service.gate.request() if scope["method"] == "POST" else nullcontext():
                body = await _whole_body(Headers(scope=scope), receive, self._service.max_body_bytes)
                await self._app(scope, _replayed(body, receive), send)
        except ApiError as error:
            await response(error)(scope, receive, send)
        except asyncio.CancelledError:
            if not self._service.closed:
                raise
            log.warning("a client that read nothing of its answer was left at the end")
        except _Stalled:
            log.warning("a client took nothing of its answer for %g seconds and was dropped", SEND_SECONDS)

    def _check_key(self, scope: Scope) -> None:
        key = self._service.plan.api_key
        if key is None or scope["path"] in OPEN_ROUTES:
            return
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        # Bytes: compare_digest refuses text that is not ASCII.
        matches = hmac.compare_digest(given.strip().encode("latin-1"), key.encode())
        if scheme.lower() != "bearer" or not matches:
            message = "API key error: send the server's key as `Authorization: Bearer KEY`."
            raise ApiError(401, message, param="Authorization", code="invalid_api_key")

    def _counted(self, scope: Scope, send: Send) -> Send:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                # FastAPI leaves the matched route in the scope; a path that no route has must not become a label.
                route = scope.get("route")
                path = route.path if route is not None else "other"
                self._service.metrics.requests.labels(path, str(message["status"])).inc()
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(message)
            except TimeoutError:
                raise _Stalled from None

        return counted


def _refuse_compressed(headers: Headers) -> None:
    coding = headers.get("content-encoding", "identity")
    if coding.strip().lower() not in ("", "identity"):
        message = f"The body is compressed ({coding[:40]}): send it as it is."
        raise ApiError(415, message, param="Content-Encoding")


def _as_meant(scope: Scope) -> Scope:
    """The request as our routes know it: HEAD is a GET whose body the server leaves out, a closing slash means nothing
    (a redirect would lead from a proxy's https to our http), and a body is JSON whatever its Content-Type says (curl's
    `-d` calls it a form)."""
    path = scope["path"].rstrip("/") or "/"
    method = {"HEAD": "GET"}.get(scope["method"], scope["method"])
    headers = [each for each in scope["headers"] if each[0] != b"content-type"] if method == "POST" else None
    json_headers = {} if headers is None else {"headers": [*headers, (b"content-type", b"application/json")]}
    return {**scope, "path": path, "raw_path": path.encode(), "method": method, **json_headers}


async def _whole_body(headers: Headers, receive: Receive, limit: int) -> bytes:
    """The body of a request. Raises ApiError 413 past `limit` bytes and 408 when it comes too slowly.

    A body that is too large is still read to its end (up to eight times the limit) and thrown away: a client that is
    cut off while it sends sees a broken connection and not the reason.
    """
    declared = headers.get("content-length", "0")
    too_large = int(declared) > limit
    if too_large and "expect" in headers:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    until = time.monotonic() + BODY_SECONDS
    while True:
        try:
            message = await asyncio.wait_for(receive(), until - time.monotonic())
        except TimeoutError:
            raise ApiError(408, f"The body took more than {BODY_SECONDS:g} seconds.", param="body") from None
        if message["type"] == "http.disconnect":
            break
        chunk = message.get("body", b"")
        size += len(chunk)
        too_large = too_large or size > limit
        if too_large:
            chunks.clear()
        else:
            chunks.append(chunk)
        if not message.get("more_body", False) or size > 8 * limit:
            break
    if too_large:
        raise _too_large(limit)
    return b"".join(chunks)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"The request is larger than {limit} bytes.", param="body", code="request_too_large")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the whole body once, and then whatever the client does next."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
