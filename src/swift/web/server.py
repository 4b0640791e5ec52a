"""The server process of the page: its port, its token, a public address where one is wanted."""

from __future__ import annotations

import secrets
import socket
from contextlib import AbstractContextManager

import httpx
import uvicorn

from swift.core.end_signals import taken_by
from swift.core.errors import SwiftError
from swift.core.listening import bind
from swift.core.optional_imports import need
from swift.web.app import create_app
from swift.web.security import LOOPBACK, Guard
from swift.web.studio import Studio

STOP_SECONDS = 2


class Server(uvicorn.Server):
    """uvicorn, ended by the first signal; it would raise it again after a clean end."""

    def capture_signals(self) -> AbstractContextManager[None]:
        """Take SIGTERM and SIGINT for the time of the server."""
        return taken_by(self.handle_exit)


def make_server(studio: Studio, listener: socket.socket, host: str, token: str | None, public_url: str = "") -> Server:
    """The server of the page on a socket that listens; `run(sockets=[listener])` answers until it is told to end."""
    config = uvicorn.Config(
        Guard(create_app(studio), token=token, host=host, public_url=public_url),  # type: ignore[arg-type]
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    return Server(config)


def serve(studio: Studio, host: str, port: int, *, share: bool, public_url: str = "") -> None:
    """Say where the page is and answer until Ctrl-C or SIGTERM; jobs go on."""
    token = None if host in LOOPBACK and not share and not public_url else secrets.token_urlsafe(24)
    with bind(host, port) as listener:
        port = listener.getsockname()[1]
        shown = {"0.0.0.0": _own_address(), "::": f"[{_own_address()}]"}.get(host, f"[{host}]" if ":" in host else host)
        query = f"?token={token}" if token else ""
        print(f"swift web-ui: http://{shown}:{port}/{query} (Ctrl-C ends the page, not the jobs)", flush=True)
        for address in (public_url, _tunnel(port) if share else ""):
            if address:
                print(f"public: {address.rstrip('/')}/{query}", flush=True)
        make_server(studio, listener, host, token, public_url).run(sockets=[listener])


def _own_address() -> str:
    """The name of this machine for others."""
    return socket.gethostname()


def _tunnel(port: int) -> str:
    """A public address through gradio's tunnel. Raises SwiftError where gradio or the way out is missing."""
    networking = need("gradio.networking", extra="ui", why="--share true")
    try:
        return networking.setup_tunnel(
            local_host="127.0.0.1",
            local_port=port,
            share_token=secrets.token_urlsafe(32),
            share_server_address=None,
            share_server_tls_certificate=None,
        )
    except (OSError, RuntimeError, ValueError, httpx.HTTPError) as error:
        raise SwiftError(
            "gradio's tunnel did not come up", where="--share", why=str(error), next="leave --share out"
        ) from error
