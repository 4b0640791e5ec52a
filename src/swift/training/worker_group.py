"""Data workers in process groups of their own, so that a signal to all of a run reaches the run alone.

`docker stop` and schedulers signal the whole group. A data worker dies of SIGTERM at once, and the run
with it, before it has saved what the signal asked it to save. The run ends its workers itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from accelerate.data_loader import DataLoaderAdapter
from torch.utils.data import DataLoader


def keep_workers_apart(loader: DataLoader) -> None:
    """Let each worker of the loader leave the group of the run when it starts."""
    base: DataLoader = loader.base_dataloader if isinstance(loader, DataLoaderAdapter) else loader
    base.worker_init_fn = partial(_leave_group, base.worker_init_fn)


def _leave_group(begin: Callable[[int], None] | None, worker: int) -> None:
    os.setpgid(0, 0)
    if begin is not None:
        begin(worker)
