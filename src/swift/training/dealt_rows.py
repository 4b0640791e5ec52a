"""The rows of an epoch over the processes of a run: dealt by micro-batches, each row to one process and none twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sized
from functools import partial
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler
from transformers import TrainingArguments
from transformers.trainer_utils import seed_worker


class DealtBatches(Sampler[list[int]]):
    """The micro-batches of all processes in order, as accelerate deals them one by one.

    Where they end before all processes have one more, empty ones make up for it, so that all have as many. It has no
    `batch_size`: accelerate fills up to that with rows of the start, which would count twice.
    """

    def __init__(self, sampler: Sampler[int], size: int, processes: int, *, drop_last: bool):
        """`size` rows each; `drop_last` leaves out what makes no full one for every process."""
        self.sampler = sampler
        """accelerate puts one into its place that knows the epoch."""
        self.drop_last = drop_last
        self._size, self._processes = size, processes

    def __len__(self) -> int:
        sampler: Any = self.sampler
        rows = len(sampler)
        share = self._size * self._processes
        return (rows // share if self.drop_last else math.ceil(rows / share)) * self._processes

    def __iter__(self) -> Iterator[list[int]]:
        batches = iter(BatchSampler(self.sampler, self._size, self.drop_last))
        for _ in range(len(self)):
            yield next(batches, [])


def train_loader(
    rows: Dataset, args: TrainingArguments, collate: Callable[[list[dict[str, Any]]], Any], processes: int
) -> DataLoader:
    """The micro-batches of all of so many `processes`, for accelerate to deal."""
    assert isinstance(rows, Sized)
    order: Sampler[int] = (
        SequentialSampler(rows) if args.train_sampling_strategy == "sequential" else RandomSampler(rows)
    )
    dealt = DealtBatches(order, args.train_batch_size, processes, drop_last=args.dataloader_drop_last)
    return DataLoader(
        rows,
        batch_sampler=dealt,
        collate_fn=collate,
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory,
        worker_init_fn=partial(seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index),
    )
