"""What the reference says of every row, computed before training, so that it need not be asked, or kept, any more."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate.utils import gather_object, send_to_device
from numpy.typing import NDArray

from swift.core.log import log
from swift.data.dataset import MapDataset
from swift.data.shard import KEPT, Column, Shard
from swift.data.token_cache import TokenCache
from swift.models.load import TORCH_DTYPES
from swift.plan.rlhf import ReferencePlan
from swift.training.objectives import Batch, Setting
from swift.training.objectives.answer_log_probs import AnswerLogProbs
from swift.training.objectives.reference import Reference, build_reference, identity

CHUNK = 256
"""Rows that are scored, stored and lost together."""
SAY_EVERY = 10.0
"""Seconds between two lines about progress."""
COLUMN = "reference"


class ScoredRows:
    """Rows with the reference's log-probabilities of their answers as `reference`."""

    def __init__(self, rows: Any, scores: NDArray[np.float32]):
        """`scores` is (rows, answers of a row)."""
        self._rows, self._scores = rows, scores
        self.lengths, self.origin = rows.lengths, rows.origin

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self._rows[index]  # another one, where media of this one cannot be decoded any more
        return {**row, COLUMN: self._scores[row["row"]].tolist()}


def scores_first(setting: Setting) -> bool:
    """Whether the reference is asked before training."""
    reference = setting.plan.alignment and setting.plan.alignment.reference
    if not reference or setting.plan.train.reuse is not None:
        return False
    if reference.precompute is not None:  # the rows of a stream have no number
        return reference.precompute
    per_epoch, steps = setting.plan.train.steps(len(setting.rows))
    return reference.asked_first(steps, per_epoch)


def score(setting: Setting, collate: Callable[[list[dict[str, Any]]], Batch], *sides: MapDataset | None) -> list[Any]:
    """The rows of each side with their scores. Those that the token cache has are not computed again."""
    assert setting.plan.alignment is not None and setting.plan.alignment.reference is not None
    scorer = _Scorer(setting, setting.plan.alignment.reference, collate)
    return [None if rows is None else ScoredRows(rows, scorer.of(rows)) for rows in sides]


class _Scorer:
    """Scores chunks of rows, each process its share of them. The reference is loaded with the first it needs."""

    def __init__(self, setting: Setting, plan: ReferencePlan, collate: Callable[[list[dict[str, Any]]], Batch]):
        self._setting, self._plan, self._collate = setting, plan, collate
        self._reference: Reference | None = None
        folder = setting.plan.data.cache
        self._cache = None
        if folder is not None:
            self._cache = TokenCache(folder, identity(setting, plan), f"reference log-probabilities, {plan.summary()}")
            self._cache.describe()

    def of(self, rows: MapDataset) -> NDArray[np.float32]:
        """(rows, answers)"""
        start = reported = time.monotonic()
        mine: list[tuple[int, NDArray[np.float32]]] = []
        known = done = 0
        for number in self._share(len(rows)):
            chunk = [rows[index] for index in range(number * CHUNK, min(len(rows), (number + 1) * CHUNK))]
            key = _key(chunk)
            values = self._stored(key)
            known += 0 if values is None else len(chunk)
            if values is None:
                values = self._computed(chunk)
                self._store(key, values)
            mine.append((number, values))
            done += len(chunk)
            if time.monotonic() - reported > SAY_EVERY:
                reported = time.monotonic()
                log.info("reference log-probabilities: %d of %d rows", done, len(rows))
        log.info(
            "reference log-probabilities of %d rows in %.1f s, %d of them from the token cache",
            *(done, time.monotonic() - start, known),
        )
        parts = gather_object(mine) if dist.is_initialized() else mine
        return np.concatenate([values for _, values in sorted(parts, key=lambda part: part[0])])

    def _share(self, count: int) -> Iterator[int]:
        first, step = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        yield from range(first, -(-count // CHUNK), step)

    def _stored(self, key: str) -> NDArray[np.float32] | None:
        shard = None if self._cache is None else self._cache.get(key)
        return None if shard is None else shard.columns[COLUMN].values.reshape(len(shard.fate), -1)

    def _store(self, key: str, values: NDArray[np.float32]) -> None:
        if self._cache is None:
            return
        rows, answers = values.shape
        nothing = np.zeros(rows, dtype=np.int32)
        column = Column(values.reshape(-1), np.arange(rows + 1, dtype=np.int64) * answers)
        kept = np.full(rows, KEPT, dtype=np.uint8)
        self._cache.put(key, Shard(kept, nothing, nothing, nothing + 1, {COLUMN: column}).pack())

    def _computed(self, items: list[dict[str, Any]]) -> NDArray[np.float32]:
        setting = self._setting
        if self._reference is None:
            self._reference = build_reference(setting, self._plan, AnswerLogProbs(setting.base), beforehand=True)
        device, dtype = setting.base.device, TORCH_DTYPES[setting.plan.train.dtype]
        size = setting.plan.train.eval_batch_size
        values: list[NDArray[np.float32]] = []
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):  # as the Trainer runs the model
            for start in range(0, len(items), size):
                some = items[start : start + size]
                batch: Any = send_to_device(self._collate(some), device)
                sums = self._reference.sums(batch)
                values.append(sums.float().cpu().numpy().reshape(len(some), -1))
        return np.concatenate(values)


def _key(items: list[dict[str, Any]]) -> str:
    """Names what is scored: the tokens of the rows, and which of them count how much."""
    digest = hashlib.sha256()
    for item in items:
        for name, value in item.items():
            if name.endswith(("input_ids", "labels", "loss_scale")):
                numbers = np.asarray(value, dtype=np.float64)
                digest.update(f"{name}:{len(numbers)}:".encode())
                digest.update(numbers.tobytes())
    return digest.hexdigest()
