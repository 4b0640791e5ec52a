"""The engine for ordinary code: its loop ends with it, whatever was under way."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from swift.engines.base import Delta, Request, SamplingParams
from swift.engines.sync_engine import SyncEngine


class Endless:
    """Answers without end, and may fail to close."""

    tokenizer = None
    max_model_len = 100
    adapters = ()

    def __init__(self, *, closes: bool = True):
        self.closes = closes
        self.left = 0

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        try:
            while True:
                yield Delta(request_id=request.id, text="x")
                await asyncio.sleep(0.001)
        finally:
            await asyncio.sleep(0.05)
            self.left += 1

    async def close(self) -> None:
        if not self.closes:
            raise RuntimeError("the driver is gone")


REQUEST = Request(id="one", prompt_ids=(1,), sampling=SamplingParams(max_tokens=5))


def started(engine: Endless) -> SyncEngine:
    async def start() -> Endless:
        return engine

    return SyncEngine(start)  # type: ignore[arg-type]


def test_an_answer_under_way_is_wound_up_before_the_loop_ends() -> None:
    engine = Endless()
    with started(engine) as sync:
        pieces = sync.stream(REQUEST)
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]
    assert engine.left == 1
    gc.collect()  # a task or a loop that was left behind would warn here, and warnings are errors


def test_the_loop_ends_though_the_engine_fails_to_close() -> None:
    with pytest.raises(RuntimeError, match="driver"), started(Endless(closes=False)):
        pass
    gc.collect()
