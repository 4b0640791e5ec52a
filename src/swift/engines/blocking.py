"""An engine for code without an event loop: it runs in a loop of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from swift.core.errors import SwiftError
from swift.engines.base import Delta, Engine, FinishReason, Request

T = TypeVar("T")


@dataclass
class Reply:
    """A whole answer. `request` is the one it answers; `error` says why there is none."""

    request: Request
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: str | None = None


class BlockingEngine:
    """The engine that `start` makes, used from ordinary code. A context manager; the engine is closed at its end.

    `start` is awaited in the engine's own loop, so that engines bound to a loop work too.
    """

    def __init__(self, start: Callable[[], Awaitable[Engine]]):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine-loop", daemon=True)
        self._thread.start()
        try:
            self.engine: Engine = self._run(_awaited(start))
        except BaseException:
            self._end_loop()
            raise

    def __enter__(self) -> BlockingEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self.engine.close())
        self._end_loop()

    def stream(self, request: Request) -> Iterator[Delta]:
        """The deltas of answer 0 as they are made. Leaving the iterator aborts the request. Raises SwiftError."""
        deltas: queue.SimpleQueue[Delta | BaseException | None] = queue.SimpleQueue()
        task = asyncio.run_coroutine_threadsafe(_pump(self.engine, request, deltas.put), self._loop)
        try:
            while (item := _next(deltas)) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            task.cancel()

    def replies(self, requests: Iterable[Request], concurrency: int) -> Iterator[Reply]:
        """Whole answers in the order of `requests`, of which at most `concurrency` are under way.

        A request that the engine refuses gets a reply with `error`. `requests` is read only as far as needed.
        """
        waiting: deque[Any] = deque()
        source = iter(requests)
        try:
            while True:
                while len(waiting) < concurrency and (request := next(source, None)) is not None:
                    waiting.append(asyncio.run_coroutine_threadsafe(_reply(self.engine, request), self._loop))
                if not waiting:
                    return
                yield waiting[0].result()
                waiting.popleft()
        finally:
            for future in waiting:
                future.cancel()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _awaited(start: Callable[[], Awaitable[Engine]]) -> Engine:
    return await start()


async def _pump(engine: Engine, request: Request, put: Callable[[Delta | BaseException | None], None]) -> None:
    end: BaseException | None = None
    try:
        async with aclosing(engine.stream(request)) as stream:  # type: ignore[type-var]  # every engine's is a generator
            async for delta in stream:
                put(delta)
    except SwiftError as error:
        end = error
    finally:
        put(end)


def _next(deltas: queue.SimpleQueue[Any]) -> Any:
    """The next item; waiting in short pieces lets Ctrl-C through on every system."""
    while True:
        try:
            return deltas.get(timeout=0.2)
        except queue.Empty:
            continue


async def _reply(engine: Engine, request: Request) -> Reply:
    reply = Reply(request)
    try:
        async with aclosing(engine.stream(request)) as stream:  # type: ignore[type-var]
            async for delta in stream:
                if delta.index == 0:
                    reply.text += delta.text
                    reply.token_ids.extend(delta.token_ids)
                    reply.finish_reason = delta.finish_reason or reply.finish_reason
                    reply.error = delta.error or reply.error
    except SwiftError as error:
        reply.finish_reason, reply.error = "error", " ".join(filter(None, (error.what, error.why)))
    return reply
