"""The rows of an epoch over the processes of a run: dealt by micro-batches, each row to one process and none twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sized
from functools import partial
from itertools import islice
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler
from transformers import TrainingArguments
from transformers.trainer_utils import seed_worker

from swift.plan.train import TrainPlan


class DealtBatches(Sampler[list[int]]):
    """The micro-batches of all processes in order, as accelerate deals them one by one.

    Where they end before all processes have one more, empty ones make up for it, so that all have as many. It has no
    `batch_size`: accelerate fills up to that with rows of the start, which would count twice.
    """

    drop_last = False
    """What accelerate asks for: nothing more is to be left out."""

    def __init__(self, sampler: Sampler[int], size: int, processes: int, *, left_out: int):
        """`size` rows each; the last `left_out` rows of every epoch are in none."""
        self.sampler = sampler
        """accelerate puts one into its place that knows the epoch."""
        self._size, self._processes, self._left_out = size, processes, left_out

    def __len__(self) -> int:
        sampler: Any = self.sampler
        return math.ceil((len(sampler) - self._left_out) / (self._size * self._processes)) * self._processes

    def __iter__(self) -> Iterator[list[int]]:
        sampler: Any = self.sampler
        rows = islice(sampler, len(sampler) - self._left_out)
        batches = iter(BatchSampler(rows, self._size, drop_last=False))
        for _ in range(len(self)):
            yield next(batches, [])


def train_loader(
    rows: Dataset, args: TrainingArguments, collate: Callable[[list[dict[str, Any]]], Any], plan: TrainPlan
) -> DataLoader:
    """The micro-batches of all processes, for accelerate to deal."""
    assert isinstance(rows, Sized)
    order: Sampler[int] = (
        SequentialSampler(rows) if args.train_sampling_strategy == "sequential" else RandomSampler(rows)
    )
    dealt = DealtBatches(order, args.train_batch_size, plan.data_parallel, left_out=plan.left_out(len(rows)))
    return DataLoader(
        rows,
        batch_sampler=dealt,
        collate_fn=collate,
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory,
        worker_init_fn=partial(seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index),
    )
