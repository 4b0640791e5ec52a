"""Chunks of rows through the preprocessor, into shards: in this process or in several, or from the token cache."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from swift.core.log import log
from swift.data.preprocess import Outcome, Preprocessor
from swift.data.shard import KEPT, LENGTH, TRUNCATED, UNENCODED, UNUSABLE, Column, Shard, columns_of, unpack
from swift.data.source import SourceRow
from swift.data.token_cache import TokenCache
from swift.prompts.bad_row import BadRow
from swift.prompts.types import Media

CHUNK = 512
"""Rows of a file that are encoded, stored and lost together."""
Keep = Literal["tokens", "lengths"]
"""What a shard keeps of its examples."""
SAY_EVERY = 10.0
"""Seconds between two lines about progress."""


@dataclass(frozen=True)
class Chunk:
    """Rows of one file."""

    rows: Sequence[SourceRow]

    def key(self) -> str:
        """Names the content: the bytes of the rows and how their columns are read."""
        digest = hashlib.sha256(self.rows[0].source.reading.encode())
        for row in self.rows:
            digest.update(b"%d:" % len(row.payload))
            digest.update(row.payload)
        return digest.hexdigest()


def chunks(rows: Iterable[SourceRow]) -> Iterator[Chunk]:
    """The rows of one file cut every `CHUNK` from the first, so that appended rows leave the earlier chunks as they
    are."""
    rows = iter(rows)
    while block := list(itertools.islice(rows, CHUNK)):
        yield Chunk(block)


def encode_chunks(
    work: Iterable[Chunk],
    preprocess: Preprocessor,
    keep: Keep = "tokens",
    *,
    num_proc: int = 1,
    cache: TokenCache | None = None,
) -> Iterator[tuple[Chunk, Shard]]:
    """Each chunk with its shard, in order. New shards go to the cache as they are made."""
    with _workers(preprocess, keep, num_proc, cache) as submit:
        pending: deque[tuple[Chunk, Callable[[], Shard]]] = deque()
        for chunk in work:
            key = chunk.key() if cache else ""
            cached = cache.get(key) if cache else None
            if cache:
                cache.rows.update(asked=len(chunk.rows), found=len(chunk.rows) if cached else 0)
            pending.append((chunk, (lambda shard=cached: shard) if cached else submit(chunk, key)))
            while len(pending) > 2 * num_proc:
                ready, shard = pending.popleft()
                yield ready, shard()
        while pending:
            ready, shard = pending.popleft()
            yield ready, shard()


def shard_of(outcomes: Sequence[Outcome], keep: Keep) -> Shard:
    """The outcomes of some rows as arrays; rows that cannot be used carry their fault."""
    size = len(outcomes)
    fate = np.full(size, KEPT, dtype=np.uint8)
    counts = np.zeros((3, size), dtype=np.int32)
    faults: dict[int, tuple[str, str]] = {}
    notes: dict[int, str] = {}
    rewrites: dict[int, tuple[str, ...]] = {}
    formats: Counter[str] = Counter()
    unused: Counter[str] = Counter()
    renamed: dict[str, str] = {}
    examples: list[dict[str, Any]] = []
    for index, outcome in enumerate(outcomes):
        converted, result = outcome.converted, outcome.result
        if converted is not None:
            formats[converted.format] += 1
            unused.update(converted.unused)
            renamed.update(converted.renamed)
            if outcome.note is not None:
                notes[index] = outcome.note
        if isinstance(result, BadRow):
            fate[index] = UNUSABLE if converted is None else UNENCODED
            faults[index] = result.reason, result.detail
            continue
        if result.rewrites:
            rewrites[index] = result.rewrites
        examples += result.examples
        counts[:, index] = result.tokens, result.trained, len(result.examples)
        fate[index] = TRUNCATED if result.truncated else KEPT
    tokens, trained, several = counts
    read = (faults, notes, rewrites, dict(formats), unused, renamed)
    return Shard(fate, tokens, trained, several, _columns(examples, keep), *read)


def _columns(examples: list[dict[str, Any]], keep: Keep) -> dict[str, Column]:
    if keep == "lengths":
        single = [{k: v for k, v in example.items() if isinstance(v, bool | int | float)} for example in examples]
        return {LENGTH: Column(np.array([_length(e) for e in examples], dtype=np.int32)), **columns_of(single)}
    _complete(examples)
    return columns_of(examples)


def _length(example: dict[str, Any]) -> int:
    return max(len(value) for name, value in example.items() if name.endswith("input_ids"))


def _complete(examples: list[dict[str, Any]]) -> None:
    """Where some examples of a chunk have weights, the others weigh 1 everywhere, and where some show something, the
    others show nothing."""
    for prefix in ("", "chosen_", "rejected_"):
        shown = f"{prefix}media"
        if any(shown in example for example in examples):
            for example in examples:
                example.setdefault(shown, Media())
        name = f"{prefix}loss_scale"
        if any(name in example for example in examples):
            for example in examples:
                example.setdefault(name, [1.0] * len(example[f"{prefix}input_ids"]))


Submit = Callable[[Chunk, str], Callable[[], Shard]]


@contextmanager
def _workers(preprocess: Preprocessor, keep: Keep, num_proc: int, cache: TokenCache | None) -> Iterator[Submit]:
    """A way to have chunks encoded: at once in this process, or in `num_proc` others."""
    if num_proc == 1:

        def here(chunk: Chunk, key: str) -> Callable[[], Shard]:
            return lambda: _encode_and_store(chunk, key, preprocess, keep, cache)

        yield here
        return
    method = "fork" if sys.platform == "linux" else "spawn"
    with (
        _one_thread_each(),
        ProcessPoolExecutor(
            num_proc, multiprocessing.get_context(method), initializer=_begin_worker, initargs=(preprocess, keep, cache)
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


_preprocess: Preprocessor
_keep: Keep
_cache: TokenCache | None


def _begin_worker(preprocess: Preprocessor, keep: Keep, cache: TokenCache | None) -> None:
    global _preprocess, _keep, _cache
    _preprocess, _keep, _cache = preprocess, keep, cache


def _work(chunk: Chunk, key: str) -> bytes | None:
    packed = shard_of(_preprocess(chunk.rows), _keep).pack()
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


def _encode_and_store(chunk: Chunk, key: str, preprocess: Preprocessor, keep: Keep, cache: TokenCache | None) -> Shard:
    shard = shard_of(preprocess(chunk.rows), keep)
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
