"""Several processes as one run: joined early, so that the first can work ahead and tell the others.

A process by itself needs none of the libraries that this takes, and does not import them.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from swift.core.environment import read_int
from swift.plan.train import TrainPlan

T = TypeVar("T")


@contextmanager
def joined(plan: TrainPlan) -> Iterator[None]:
    """Be in the process group (gloo on CPUs, else the device's own) when the run has several processes."""
    if plan.world_size == 1:
        yield
        return
    import torch.distributed as dist
    from accelerate import PartialState

    backend = {"backend": plan.distributed.ddp_backend} if plan.distributed.ddp_backend else {}
    PartialState(cpu=plan.device == "cpu", timeout=timedelta(seconds=plan.distributed.ddp_timeout), **backend)
    try:
        yield
    except BaseException as error:
        _let_go(error)
        raise
    finally:
        # DDP has to be gone before the group it talks through: freed later, it waits for a thread that waits for us.
        gc.collect()
        dist.destroy_process_group()


def _let_go(error: BaseException) -> None:
    """Empty the frames that an error went through; they hold the model."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__


@contextmanager
def first_ahead() -> Iterator[None]:
    """The first process runs what is inside, then the others do, over what it left on disk."""
    if not _joined():
        yield
        return
    from accelerate import PartialState

    state = PartialState()
    if not state.is_main_process:
        state.wait_for_everyone()
    yield
    if state.is_main_process:
        state.wait_for_everyone()


def told_by_first(value: T) -> T:
    """The first process's `value`, in all processes."""
    if not _joined():
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def in_all(value: bool) -> bool:
    """Whether `value` is true in every process."""
    if not _joined():
        return value
    import torch.distributed as dist

    values = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return all(values)


def _joined() -> bool:
    if read_int("WORLD_SIZE", 1) == 1:
        return False
    import torch.distributed as dist

    return dist.is_initialized()
