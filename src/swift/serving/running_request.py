"""One HTTP request at the engine: its prompts answered together, counted, and stopped when the client goes away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import Request as HttpRequest

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.engines.base import Delta, Engine, Request, SamplingParams, TokenLogprob
from swift.prompts.images import BadMedium
from swift.serving.errors import ApiError
from swift.serving.media import refusal
from swift.serving.schema import Generation, Usage
from swift.serving.service import Prepared, Service

T = TypeVar("T")


@dataclass(kw_only=True)
class Job:
    """The prompts of one HTTP request. `deltas` may be run once."""

    service: Service
    id: str
    model: str
    prepared: Prepared
    created: int = field(default_factory=lambda: int(time.time()))
    generated: int = 0
    cached: int = 0

    @property
    def prompts(self) -> Sequence[tuple[int, ...]]:
        """The token ids of each prompt."""
        return self.prepared.prompts

    @property
    def sampling(self) -> SamplingParams:
        """How all of them are answered."""
        return self.prepared.sampling

    async def deltas(self) -> AsyncGenerator[tuple[int, Delta], None]:
        """(number of the choice, its next delta): answer i of prompt p is choice p * n + i. Raises ApiError."""
        metrics, started, before = self.service.metrics, time.monotonic(), None
        with self.service.gate.seats(len(self.prompts) * self.sampling.n):
            try:
                async with aclosing(_merged(self.service.loaded.engine, self._requests())) as stream:
                    async for prompt, delta in stream:
                        now = time.monotonic()
                        if delta.token_ids and before is None:
                            metrics.first_token.observe(now - started)
                        elif delta.token_ids and before is not None:
                            metrics.per_token.observe((now - before) / len(delta.token_ids))
                        before = now if delta.token_ids else before
                        self._take(delta)
                        yield prompt * self.sampling.n + delta.index, delta
            except BadMedium as error:  # a head may look whole, and what is behind it not be
                places = self.prepared.places.get(error.key, ())
                raise refusal(error, places[0] if len(places) == 1 else error.key) from error
            except SwiftError as error:
                message = error.reason
                given = error.where if error.where in Generation.model_fields else None
                raise ApiError(400, message, param=self.prepared.blame or given) from error
            finally:
                metrics.duration.observe(time.monotonic() - started)
                metrics.answered(sum(map(len, self.prompts)), self.generated, self.cached)
                if self.service.plan.verbose:
                    log.info("%s done: %s", self.id, self.usage())

    async def log_probs(self) -> list[list[TokenLogprob]]:
        """The tokens of each prompt with their log-probabilities; those of the first mean nothing. Raises ApiError."""
        engine, top = self.service.loaded.engine, self.sampling.logprobs or 0
        with self.service.gate.seats(len(self.prompts)):
            try:
                longer = [ids for ids in self.prompts if ids[1:]]
                told = await asyncio.gather(
                    *(engine.log_probs(ids[:1], [ids[1:]], self.prepared.adapter, top) for ids in longer)
                )
            except SwiftError as error:
                raise ApiError(400, error.reason, param="echo") from error
        rest = iter(told)
        return [
            [TokenLogprob(self.service.text(ids[:1]), ids[0], 0.0), *(next(rest)[0] if ids[1:] else ())]
            for ids in self.prompts
        ]

    def usage(self) -> Usage:
        """Tokens so far."""
        prompt = sum(map(len, self.prompts))
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.generated,
            "total_tokens": prompt + self.generated,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }

    def _requests(self) -> list[Request]:
        return [
            Request(
                id=f"{self.id}-{at}",
                prompt_ids=ids,
                sampling=self.sampling,
                adapter=self.prepared.adapter,
                media=self.prepared.media,
            )
            for at, ids in enumerate(self.prompts)
        ]

    def _take(self, delta: Delta) -> None:
        self.generated += len(delta.token_ids)
        if delta.index == 0:
            self.cached += delta.cached_tokens
        if delta.finish_reason is None:
            return
        self.service.metrics.finished.labels(delta.finish_reason).inc()
        if delta.finish_reason == "error":
            raise ApiError(500, f"The engine failed: {delta.error}", code="engine_error")
        if delta.finish_reason == "abort":
            raise ApiError(503, "The engine stopped before the answer was whole.", code="aborted")


async def _merged(engine: Engine, requests: list[Request]) -> AsyncGenerator[tuple[int, Delta], None]:
    """The deltas of several requests as they come, each with the number of its request."""
    if len(requests) == 1:
        async with aclosing(engine.stream(requests[0])) as deltas:  # type: ignore[type-var]
            async for delta in deltas:
                yield 0, delta
        return
    queue: asyncio.Queue[tuple[int, Delta | BaseException | None]] = asyncio.Queue()

    async def pump(at: int, request: Request) -> None:
        end: BaseException | None = None
        try:
            async with aclosing(engine.stream(request)) as deltas:  # type: ignore[type-var]
                async for delta in deltas:
                    queue.put_nowait((at, delta))
        except SwiftError as error:
            end = error
        finally:
            queue.put_nowait((at, end))

    pumps = [asyncio.create_task(pump(at, request)) for at, request in enumerate(requests)]
    try:
        running = len(pumps)
        while running:
            at, item = await queue.get()
            if isinstance(item, Delta):
                yield at, item
            elif item is not None:
                raise item
            else:
                running -= 1
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


@dataclass
class Collected:
    """An answer that was gathered whole."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str = "stop"

    def rank(self) -> float:
        """Mean log-probability, by which the best of several answers is picked."""
        return sum(token.logprob for token in self.logprobs) / max(len(self.logprobs), 1)


async def collect(job: Job) -> list[Collected]:
    """Every answer of a job, whole, in order."""
    choices = [Collected() for _ in range(len(job.prompts) * job.sampling.n)]
    async with aclosing(job.deltas()) as stream:
        async for at, delta in stream:
            choice = choices[at]
            choice.text += delta.text
            choice.token_ids.extend(delta.token_ids)
            choice.logprobs.extend(delta.logprobs)
            choice.finish_reason = delta.finish_reason or choice.finish_reason
    return choices


def best(choices: list[Collected], n: int, best_of: int) -> list[Collected]:
    """The `asked` likeliest of each `made` answers to a prompt."""
    if n == best_of:
        return choices
    groups = [choices[at : at + best_of] for at in range(0, len(choices), best_of)]
    return [choice for group in groups for choice in sorted(group, key=Collected.rank, reverse=True)[:n]]


class ClientGone(Exception):
    """The client hung up before its answer was ready."""


async def until_gone(http: HttpRequest, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client hangs up first. Raises ClientGone then."""
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_hung_up(http))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _hung_up(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
