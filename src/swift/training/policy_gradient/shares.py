"""A roll-out over the processes of a run: each answers a share of the prompts, and then all know every answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def share(items: Sequence[T]) -> Sequence[T]:
    """The items of this process: neighbours, as many as every other process has or one more or less."""
    if not dist.is_initialized():
        return items
    rank, world = dist.get_rank(), dist.get_world_size()
    return items[len(items) * rank // world : len(items) * (rank + 1) // world]


def gathered(mine: list[T]) -> list[T]:
    """The results of all processes in the order of the items that were shared."""
    if not dist.is_initialized():
        return mine
    parts: list[list[T]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(parts, mine)
    return [result for part in parts for result in part]


def is_first() -> bool:
    """Whether this process writes the record and calls the functions of the user."""
    return not dist.is_initialized() or dist.get_rank() == 0
