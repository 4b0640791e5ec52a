"""The server process: binds first, loads, answers, drains on a signal, stops."""

from __future__ import annotations

import asyncio
import getpass
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from swift.core.end_signals import taken_by
from swift.core.errors import Interrupted, SwiftError
from swift.core.listening import bind as bind
from swift.core.log import log
from swift.serving.app import create_app
from swift.serving.service import Loaded, Service

HEADER_SECONDS = 15.0
"""The head of a request must have come in whole after this time."""
STOP_SECONDS = 5
"""After a second signal clients have this time to hear that their answers end."""
IDLE_SECONDS = 75
"""A connection without a request is closed after this time; longer than the pools of clients keep theirs."""


def _key_password(keyfile: str | None, certfile: str | None) -> str | None:
    """The password of an encrypted TLS key, asked for on the terminal; None for a plain key, or no key at all.

    Raises SwiftError for a key and certificate that cannot be used, and for an encrypted key without a terminal.
    """
    if keyfile is None or certfile is None:
        return None
    given: list[str] = []

    def ask() -> str:
        if sys.stdin is None or not sys.stdin.isatty():
            raise SwiftError(
                "the TLS key is encrypted and there is no terminal to ask for its password",
                where="--ssl_keyfile",
                next=f"decrypt it (openssl pkey -in {keyfile} -out plain.pem), or start the server in a terminal",
            )
        given.append(getpass.getpass(f"Password of {keyfile}: "))
        return given[-1]

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile, ask)
    except OSError as error:
        where = "--ssl_keyfile, --ssl_certfile"
        raise SwiftError("the TLS key and certificate cannot be used", where=where, why=str(error)) from error
    return given[-1] if given else None


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP protocol with a time limit on the head of a request, which uvicorn has only between requests."""

    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock with the connection."""
        super().connection_made(transport)
        self._limit = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def data_received(self, data: bytes) -> None:
        """Stop the clock when a head is whole, start it again with the first byte of the next one."""
        super().data_received(data)
        waiting = self.cycle is None or self.cycle.response_complete
        if waiting and self._limit is None and not self.transport.is_closing():
            self._limit = self.loop.call_later(HEADER_SECONDS, self._too_slow)
        elif not waiting:
            self._stop_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock with the connection."""
        self._stop_clock()
        super().connection_lost(exc)

    def _unsupported_upgrade_warning(self) -> None:
        """An offer to change the protocol may be passed over (RFC 9110, 7.8); nothing is missing here."""

    def _stop_clock(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _too_slow(self) -> None:
        self._limit = None
        self.transport.close()


class Server(uvicorn.Server):
    """Answers on a listening socket until a signal or `stop`.

    `load` runs in a thread beside the event loop, which it is given, and until it is done every answer is 503; `ready`
    is called once the model answers. At the end what is new is refused and what was accepted is finished.
    """

    def __init__(
        self,
        service: Service,
        listener: socket.socket,
        load: Callable[[asyncio.AbstractEventLoop], Loaded],
        ready: Callable[[], None],
    ):
        config = uvicorn.Config(
            create_app(service),
            http=PatientProtocol,
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=IDLE_SECONDS,
            ssl_keyfile=service.plan.ssl_keyfile,
            ssl_certfile=service.plan.ssl_certfile,
            ssl_keyfile_password=_key_password(service.plan.ssl_keyfile, service.plan.ssl_certfile),
        )
        config.load()
        super().__init__(config)
        self._cut_short = False
        self._failure: BaseException | None = None
        self.service = service
        self._listener = listener
        self._load = load
        self._ready = ready

    def answer(self) -> None:
        """Run to the end. Raises what `load` raised, and Interrupted when a second signal cut the end short."""
        self.run(sockets=[self._listener])
        if self._failure is not None:
            raise self._failure
        if self._cut_short:
            raise Interrupted("stopped before every answer was finished", exit_code=130)

    def stop(self) -> None:
        """End as after a first signal. May be called from any thread."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer /health at once and load meanwhile."""
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        # A daemon: a signal while the model is loaded ends the process without waiting for it.
        threading.Thread(target=self._load_beside, args=(loop,), name="load", daemon=True).start()

    def _load_beside(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            loaded = self._load(loop)
        except BaseException as error:  # raised again by `serve`, in the thread of the command
            self._failure = error
            self.should_exit = True
            return
        loop.call_soon_threadsafe(self._open, loaded)

    def _open(self, loaded: Loaded) -> None:
        self.service.open(loaded)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for the answers under way with the door still open, so that newcomers hear 503 and not a broken line."""
        gate = self.service.gate
        gate.drain()
        if gate.requests:
            log.info("finishing %d requests; a second signal stops at once", gate.requests)
        while gate.requests and not self.force_exit:
            await asyncio.sleep(0.05)
        if self.force_exit:
            # The engine ends what is under way, so that every client hears why, and the rest is an ordinary end.
            self._cut_short, self.force_exit = True, False
            self.config.timeout_graceful_shutdown = STOP_SECONDS
            await self.service.close()
        await super().shutdown(sockets)

    def capture_signals(self) -> AbstractContextManager[None]:
        """Take SIGTERM and SIGINT for the time of the server."""
        return taken_by(self.handle_exit)

    def handle_exit(self, sig: int, frame: object) -> None:
        """The first signal drains, the second stops."""
        self.force_exit = self.should_exit
        self.should_exit = True
