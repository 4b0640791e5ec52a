"""Chunks of rows through the preprocessor: in this process or in several, from the token cache where it has them."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager

from swift.core.log import log
from swift.data.preprocess import Chunk, Recipe, encode_chunk
from swift.data.shard import Shard, unpack
from swift.data.token_cache import TokenCache

SAY_EVERY = 10.0
"""Seconds between two lines about progress."""


def encode_chunks(
    work: Iterable[Chunk], recipe: Recipe, *, num_proc: int = 1, cache: TokenCache | None = None
) -> Iterator[tuple[Chunk, Shard]]:
    """Each chunk with its shard, in order. New shards go to the cache as they are made."""
    with _workers(recipe, num_proc, cache) as submit:
        pending: deque[tuple[Chunk, Callable[[], Shard]]] = deque()
        for chunk in work:
            key = chunk.key() if cache else ""
            found = cache.get(key) if cache else None
            if cache:
                cache.rows.update(asked=len(chunk.rows), found=len(chunk.rows) if found else 0)
            pending.append((chunk, (lambda shard=found: shard) if found else submit(chunk, key)))
            while len(pending) > 2 * num_proc:
                ready, shard = pending.popleft()
                yield ready, shard()
        while pending:
            ready, shard = pending.popleft()
            yield ready, shard()


Submit = Callable[[Chunk, str], Callable[[], Shard]]


@contextmanager
def _workers(recipe: Recipe, num_proc: int, cache: TokenCache | None) -> Iterator[Submit]:
    """A way to have chunks encoded: at once in this process, or in `num_proc` others."""
    if num_proc == 1:

        def here(chunk: Chunk, key: str) -> Callable[[], Shard]:
            return lambda: _encode_and_store(chunk, key, recipe, cache)

        yield here
        return
    method = "fork" if sys.platform == "linux" else "spawn"
    with (
        _one_thread_each(),
        ProcessPoolExecutor(
            num_proc, multiprocessing.get_context(method), initializer=_begin_worker, initargs=(recipe, cache)
        ) as pool,
    ):

        def there(chunk: Chunk, key: str) -> Callable[[], Shard]:
            future: Future[bytes | None] = pool.submit(_work, chunk, key)
            return lambda: _received(future.result(), key, cache)

        try:
            yield there
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep the tokenizer's own threads out of the workers; they would fight over the cores."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


_recipe: Recipe
_cache: TokenCache | None


def _begin_worker(recipe: Recipe, cache: TokenCache | None) -> None:
    global _recipe, _cache
    _recipe, _cache = recipe, cache


def _work(chunk: Chunk, key: str) -> bytes | None:
    packed = encode_chunk(chunk, _recipe).pack()
    if _cache is None:
        return packed
    _cache.put(key, packed)
    return None


def _received(packed: bytes | None, key: str, cache: TokenCache | None) -> Shard:
    if packed is not None:
        return unpack(packed)
    assert cache is not None
    shard = cache.get(key)
    if shard is None:
        raise OSError(f"the token cache at {cache.home} lost the shard it was just given")
    return shard


def _encode_and_store(chunk: Chunk, key: str, recipe: Recipe, cache: TokenCache | None) -> Shard:
    shard = encode_chunk(chunk, recipe)
    if cache is None:
        return shard
    cache.put(key, shard.pack())
    return _received(None, key, cache)


class Progress:
    """A line in the log now and then while rows are encoded."""

    def __init__(self, what: str):
        self.what, self.rows, self._start = what, 0, time.monotonic()
        self._given = self._start

    def add(self, rows: int) -> None:
        """Count rows; says how many there were so far once in a while."""
        self.rows += rows
        now = time.monotonic()
        if now - self._given > SAY_EVERY:
            self._given = now
            log.info("%s: %d rows, %.0f rows/s", self.what, self.rows, self.rows / (now - self._start))
