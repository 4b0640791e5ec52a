"""What is gathered of a run for a checkpoint: in the memory of who writes it while there is room, then on its disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from swift.core.log import once
from swift.models.free_memory import free_host_memory

SHARE = 0.5
"""Of the free memory of a host, as much as gathered tensors may take: the processes on it go on with the rest."""
Keep = Callable[[Tensor], Tensor]
"""From a whole tensor, wherever it is, to what a checkpoint is written of."""


class Gathered:
    """Keeps whole tensors on the CPU, one after the other; in files that are mapped when memory would get short.

    Such files have no name any more: the disk has its room back with the last tensor, however the run ends.
    """

    def __init__(self, folder: Path, room: int | None = None):
        """Files are made in the existing `folder`; `room` are the bytes that may be in memory, None measures them."""
        self._folder = folder
        self._room = int(free_host_memory() * SHARE) if room is None else room

    def __call__(self, tensor: Tensor) -> Tensor:
        """A copy of it."""
        size = tensor.numel() * tensor.element_size()
        self._room -= size
        if self._room >= 0 or not size:
            return tensor.detach().cpu().clone()
        once("checkpoint: what is gathered of it lies on the disk, as it would take more than half of the free memory")
        path = self._folder / ".gathered"
        with path.open("wb") as file:
            _take(file.fileno(), size)
        mapped = torch.from_file(str(path), shared=True, size=tensor.numel(), dtype=tensor.dtype)
        path.unlink()
        return mapped.reshape(tensor.shape).copy_(tensor.detach())


def _take(file: int, size: int) -> None:
    """Let an empty file have its size. On a full disk that is an error here, and the end of the process when mapped."""
    if sys.platform == "linux":
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)


def nothing(tensor: Tensor) -> Tensor:
    """What a process keeps that writes no checkpoint."""
    return torch.empty(0)
