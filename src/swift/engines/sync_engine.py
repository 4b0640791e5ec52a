"""An engine for code without an event loop: it runs in a loop of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from swift.core.errors import SwiftError
from swift.engines.base import Delta, Engine, FinishReason, Request

S = TypeVar("S")
T = TypeVar("T")
_END = object()


@dataclass
class Reply:
    """An answer. `error` says why there is none; a reply to what never became a request has none."""

    request: Request | None
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: str | None = None

    def add(self, delta: Delta) -> None:
        """Take in the next piece."""
        if delta.index == 0:
            self.text += delta.text
            self.token_ids.extend(delta.token_ids)
            self.finish_reason = delta.finish_reason or self.finish_reason
            self.error = delta.error or self.error


class SyncEngine:
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

    def __enter__(self) -> SyncEngine:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._run(self.engine.close())
        finally:
            self._end_loop()

    def stream(self, request: Request) -> Iterator[Delta]:
        """The deltas of a request as they are made. Leaving the iterator aborts it. Raises SwiftError."""
        deltas, task = self._begin(request)
        try:
            while (item := _next(deltas)) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            task.cancel()

    def streams(self, requests: Iterable[Request], concurrency: int) -> Iterator[tuple[Request, Iterator[Delta]]]:
        """Each request in order with its deltas, while up to `concurrency` of them are answered at the same time.

        The deltas of one have to be read to their end before the next is asked for; a request that the engine refuses
        ends in a delta with "error". `requests` is read only as far as needed.
        """
        waiting: deque[tuple[Request, queue.SimpleQueue[Any], Future[None]]] = deque()
        source = iter(requests)
        try:
            while True:
                while len(waiting) < concurrency and (request := next(source, None)) is not None:
                    waiting.append((request, *self._begin(request)))
                if not waiting:
                    return
                request, deltas, _ = waiting[0]
                yield request, _lenient(request, deltas)
                waiting.popleft()
        finally:
            for _, _, task in waiting:
                task.cancel()

    def replies(self, requests: Iterable[Request], concurrency: int) -> Iterator[Reply]:
        """The same with whole answers (those of index 0)."""
        for request, deltas in self.streams(requests, concurrency):
            reply = Reply(request)
            for delta in deltas:
                reply.add(delta)
            yield reply

    def map(self, work: Callable[[Engine, S], Awaitable[T]], items: Iterable[S], concurrency: int) -> Generator[T]:
        """What `work` makes of each item, in order, while up to `concurrency` of them are under way."""
        under_way: deque[Future[T]] = deque()
        source = iter(items)
        try:
            while True:
                while len(under_way) < concurrency and (item := next(source, _END)) is not _END:
                    under_way.append(asyncio.run_coroutine_threadsafe(_worked(work, self.engine, item), self._loop))
                if not under_way:
                    return
                yield _result(under_way[0])
                under_way.popleft()
        finally:
            for future in under_way:
                future.cancel()

    def _begin(self, request: Request) -> tuple[queue.SimpleQueue[Any], Future[None]]:
        deltas: queue.SimpleQueue[Any] = queue.SimpleQueue()
        return deltas, asyncio.run_coroutine_threadsafe(_pump(self.engine, request, deltas.put), self._loop)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end_loop(self) -> None:
        try:
            self._run(_settled())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


async def _settled() -> None:
    """What still runs in this loop is cancelled, and its generators are closed: nothing may outlive the loop."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        if not task.cancelling():  # a second time would break into its winding up
            task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


async def _worked(work: Callable[[Engine, S], Awaitable[T]], engine: Engine, item: Any) -> T:
    return await work(engine, item)


def _result(future: Future[T]) -> T:
    """The result; waiting in short pieces lets Ctrl-C through on every system."""
    while True:
        try:
            return future.result(timeout=0.2)
        except TimeoutError:
            if future.done():
                raise


async def _awaited(start: Callable[[], Awaitable[Engine]]) -> Engine:
    return await start()


async def _pump(engine: Engine, request: Request, put: Callable[[Delta | BaseException | None], None]) -> None:
    end: BaseException | None = None
    try:
        async with aclosing(engine.stream(request)) as stream:  # type: ignore[type-var]  # every engine's is a generator
            async for delta in stream:
                put(delta)
    except Exception as error:  # raised again where the deltas are read
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


def _lenient(request: Request, deltas: queue.SimpleQueue[Any]) -> Iterator[Delta]:
    while (item := _next(deltas)) is not None:
        if isinstance(item, SwiftError):
            yield Delta(request_id=request.id, finish_reason="error", error=item.one_line)
            return  # nothing follows an error
        if isinstance(item, BaseException):
            raise item
        yield item
