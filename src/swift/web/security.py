"""Who may ask the page: this machine alone, or whoever has the token; and only its own pages may change something."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
OWN_HEADER = "x-swift"
"""Scripts of the page send it; another site's cannot without asking, and is answered no."""
LARGEST_BODY = 4 * 2**20
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'self'; base-uri 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """Around the app. Without a `token` the page answers under the names of this machine alone (DNS rebinding).

    `public_url` is where a proxy shows the page: requests may come from pages there, and its path is taken off, if the
    proxy leaves it on. Addresses within the pages are relative, so a proxy that takes it off needs nothing.
    """

    def __init__(self, app: App, *, token: str | None, host: str, public_url: str = ""):
        self._app = app
        self._token = token
        self._names = {*LOOPBACK, host}
        public = urlsplit(public_url)
        self._site = public.netloc.lower()
        self._prefix = public.path.rstrip("/")
        self._secure = "; Secure" if public.scheme == "https" else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._prefix and scope["path"].startswith(f"{self._prefix}/"):
            scope = {**scope, "path": scope["path"][len(self._prefix) :]}
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if self._token is None and _hostname(headers.get("host", "")) not in self._names:
            await _refuse(send, 403, "This page answers under the name of this machine only.")
        elif self._token is not None and not await self._has_token(scope, headers, send):
            return
        elif scope["method"] not in ("GET", "HEAD") and (reason := _foreign(headers, self._site)):
            await _refuse(send, 403, reason)
        elif (
            not headers.get("content-length", "0").isdecimal() or int(headers.get("content-length", "0")) > LARGEST_BODY
        ):
            await _refuse(send, 413, "Too much.")
        else:
            await self._app(scope, receive, _with_headers(send))

    async def _has_token(self, scope: Scope, headers: Mapping[str, str], send: Send) -> bool:
        """Whether the cookie has the token. A token in the address becomes a cookie, and the address loses it."""
        assert self._token is not None
        name = f"swift-token-{scope['server'][1]}" if scope.get("server") else "swift-token"
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(name)
        except CookieError:
            cookie = None
        if cookie is not None and hmac.compare_digest(cookie.value.encode(), self._token.encode()):
            return True
        query = parse_qsl(scope["query_string"].decode("latin-1"))
        given = dict(query).get("token", "")
        if scope["method"] == "GET" and hmac.compare_digest(given.encode(), self._token.encode()):
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            place = "./" + quote(scope["path"].rpartition("/")[2]) + (f"?{rest}" if rest else "")
            setting = f"{name}={self._token}; Path=/; HttpOnly; SameSite=Lax{self._secure}"
            await _answer(send, 303, b"", ((b"location", place.encode()), (b"set-cookie", setting.encode())))
            return False
        await _refuse(
            send,
            401,
            "Open the address that `swift web-ui` printed; it holds the token. 请打开 swift web-ui 打印的地址。",
        )
        return False


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _foreign(headers: Mapping[str, str], public: str) -> str | None:
    """Why a request that changes something comes from no page of ours; `public` is the host of a proxy's page."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and urlsplit(origin).netloc not in {headers.get("host"), public} - {"", None}:
        return "This request comes from another site."
    if site is not None and site != "same-origin":
        return "This request comes from another site."
    if OWN_HEADER not in headers:
        return f"Only pages of this server may ask this (header {OWN_HEADER})."
    return None


def _with_headers(send: Send) -> Send:
    async def sending(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(pair for pair in HEADERS if pair[0] not in own)]
        await send(message)

    return sending


async def _refuse(send: Send, status: int, reason: str) -> None:
    await _answer(send, status, reason.encode(), ((b"content-type", b"text/plain; charset=utf-8"),))


async def _answer(send: Send, status: int, body: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *HEADERS]})
    await send({"type": "http.response.body", "body": body})
