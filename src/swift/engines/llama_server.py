"""llama.cpp's own server, in this process by the wheel `xllamacpp`, behind a socket that nobody else may open."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import httpx

from swift.core.errors import SwiftError
from swift.core.optional_imports import need

HOST = "http://llama.cpp"
"""Nobody resolves it: the client talks to the socket."""
ERRORS_ONLY = 1
"""How much llama.cpp writes to stderr."""
ASKED = "POST /completion HTTP/1.1\r\nHost: llama.cpp\r\nConnection: close\r\nContent-Length: {}\r\n\r\n"
TOLD = ("tokens", "tokens_predicted", "stop")
"""Of the last event, which would repeat all settings and the prompt."""
EVENT = b"data: "
READ = 2**16
"""Bytes read at a time, at most."""


class LlamaServer:
    """A GGUF file, loaded. `places` answers run at once, each with `context` tokens of prompt and answer."""

    def __init__(self, file: Path, *, context: int, places: int, threads: int | None = None):
        xllamacpp = need("xllamacpp", extra="gguf", why="running a GGUF file")
        self._folder = Path(tempfile.mkdtemp(prefix="swift-llama-"))
        socket = self._socket = str(self._folder / "llama.sock")
        settings = xllamacpp.CommonParams()
        settings.model.path = str(file)
        settings.hostnames = [socket]
        settings.n_ctx, settings.n_parallel = context * places, places
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads or _threads()
        settings.verbosity = ERRORS_ONLY
        settings.ui = settings.endpoint_slots = False
        settings.cache_ram_mib = 0  # a prompt is kept in its place, and not in 8 GB beside it
        try:
            self._server = xllamacpp.Server(settings)
        except RuntimeError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise SwiftError(
                f"llama.cpp does not load {file}", why="its own message is above", next="convert the model again"
            ) from error
        self._async = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=socket, limits=httpx.Limits(max_connections=None)),
            base_url=HOST,
            timeout=None,
        )
        self._sync = httpx.Client(transport=httpx.HTTPTransport(uds=socket), base_url=HOST, timeout=None)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one request. Raises SwiftError with llama.cpp's reason when it refuses."""
        reply = self._sync.post(path, json=body)
        if reply.status_code != httpx.codes.OK:
            raise _refused(reply.text)
        return reply.json()

    async def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one request; cancelled, llama.cpp stops. Raises SwiftError for a refusal."""
        reply = await self._async.post("/completion", json=body)
        if reply.status_code != httpx.codes.OK:
            raise _refused(reply.text)
        return reply.json()

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[list[dict[str, Any]]]:
        """What llama.cpp tells while it answers one request, all that came together at once; the last of it has `stop`.

        Closed before, llama.cpp stops. Raises SwiftError for a refusal. Through httpx an event takes three times as
        long, which is felt where the model is small and many answers run.
        """
        reader, writer = await asyncio.open_unix_connection(self._socket)
        try:
            data = json.dumps({**body, "stream": True, "response_fields": TOLD}).encode()
            writer.write(ASKED.format(len(data)).encode() + data)
            head = await reader.readuntil(b"\r\n\r\n")
            if head.split(maxsplit=2)[1] != b"200":
                raise _refused((await reader.read()).decode())
            begun = b""
            while data := await reader.read(READ):
                *lines, begun = (begun + data).split(b"\n")
                # Between the events are the sizes of the chunks, one chunk for each event.
                events = [json.loads(line[len(EVENT) :]) for line in lines if line.startswith(EVENT)]
                for event in events:
                    if "error" in event:
                        raise _refused(json.dumps(event))
                if events:
                    yield events
        finally:
            writer.close()

    def tokens(self, text: str, *, whole: bool) -> list[int]:
        """Ids of a text, special tokens read as such; `whole` with the begin token that the file asks for."""
        return self.post("/tokenize", {"content": text, "add_special": whole, "parse_special": True})["tokens"]

    async def close(self) -> None:
        """End llama.cpp's threads and give the memory back."""
        await self._async.aclose()
        self.end()

    def end(self) -> None:
        """As `close`, where no event loop used it."""
        self._sync.close()
        del self._server
        shutil.rmtree(self._folder, ignore_errors=True)


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))


def _refused(text: str) -> SwiftError:
    try:
        message = json.loads(text)
        message = message.get("error", message)["message"]
    except (ValueError, KeyError, TypeError):
        message = text.strip() or "it gave no reason"
    return SwiftError(f"llama.cpp refuses the request: {message}")
