"""Micro-batches as forward passes of one process, as many as the others have where processes meet in every pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from swift.plan.train import TrainPlan
from swift.training.batches import MicroBatch, tokens_in
from swift.training.objectives import Batch
from swift.training.parallel.sequence import SequenceGroup
from swift.training.passes import lay, passes_needed
from swift.training.shared_beginnings import sized


class ForwardPasses:
    """Lays rows into passes, as the plan says, and takes the share of each that is computed here."""

    def __init__(
        self,
        plan: TrainPlan,
        collate: Callable[[list[dict[str, Any]]], Batch],
        sequence: SequenceGroup | None,
        device: torch.device,
    ):
        self._plan, self._collate, self._sequence, self._device = plan, collate, sequence, device

    def of(self, micro_batches: Sequence[MicroBatch], spare: Any, *, together: bool, least: int = 0) -> list[Batch]:
        """The rows of some micro-batches in forward passes, `least` or more.

        When `together`, the processes meet in every pass, and all have as many. What is missing is made up by passes
        over the first row of `spare`, which count for nothing: their `items` are 0.
        """
        filled = [micro_batch.rows for micro_batch in micro_batches if micro_batch.rows]
        rows = [row for some in filled for row in some]
        sizes, plan = ([], self._plan) if self._plan.pass_tokens is None else sized(rows, self._plan)
        count = passes_needed(sizes, plan, len(filled)) if sizes else len(filled)
        if together:
            count = self._most(count)
        passes = [[rows[row] for row in numbers] for numbers in lay(sizes, count, plan)] if sizes else filled
        missing = max(least, count if together else 0) - len(passes)
        return [*map(self._collated, passes), *(self._spare(spare) for _ in range(missing))]

    def _collated(self, rows: list[dict[str, Any]]) -> Batch:
        batch = self._collate(rows)
        if "input_ids" in batch:  # what a model is still to answer comes with its first forward pass
            batch["tokens"] = tokens_in(batch)
        return batch if self._sequence is None else self._sequence.share(batch)

    def _spare(self, rows: Any) -> Batch:
        return {**self._collated([rows[0]]), "items": 0, "tokens": 0}

    def _most(self, count: int) -> int:
        """The largest `count` of all processes."""
        most = torch.tensor(count, device=self._device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return int(most)
