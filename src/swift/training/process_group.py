"""Several processes as one run: joined early, so that the first can work ahead and tell the others.

A process by itself needs none of the libraries that this takes, and does not import them.
"""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from swift.core.environment import read_int
from swift.core.errors import SwiftError
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

    if plan.device == "cpu":  # accelerate loads DeepSpeed where it is installed, which wonders at the absence of a GPU
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    backend = backend_of(plan)
    known = [name.rpartition(":")[2] for name in (backend or "").split(",") if name]
    if not all(map(dist.is_backend_available, known)) or (plan.device == "cpu" and backend == "nccl"):
        raise SwiftError(
            f"--ddp_backend {backend} cannot be used",
            where="--ddp_backend",
            why="it sends between NVIDIA GPUs" if backend == "nccl" else "this PyTorch was built without it",
            next="leave it out: gloo is taken on CPUs, and what belongs to the device elsewhere",
        )
    PartialState(
        cpu=plan.device == "cpu",
        timeout=timedelta(seconds=plan.distributed.ddp_timeout),
        **({} if backend is None else {"backend": backend}),
    )
    if plan.zero is not None:
        from swift.training.parallel.zero import prepare_process

        prepare_process(plan.device)
    try:
        yield
    except BaseException as error:
        _let_go(error)
        raise
    finally:
        # DDP has to be gone before the group it talks through: freed later, it waits for a thread that waits for us.
        gc.collect()
        dist.destroy_process_group()


def backend_of(plan: TrainPlan) -> str | None:
    """What the processes talk through; None leaves it to accelerate.

    Shares that FSDP leaves on the host are added up and gathered there, which NCCL cannot.
    """
    given: str | None = plan.distributed.ddp_backend
    offloads = plan.fsdp is not None and plan.fsdp.offloads
    return "cuda:nccl,cpu:gloo" if offloads and plan.device == "cuda" and given in (None, "nccl") else given


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


def require_same(facts: Mapping[str, object]) -> None:
    """Raise SwiftError, in every process, when they do not all have the same `facts`, by name."""
    if not _joined():
        return
    import torch.distributed as dist

    of_all: list[Mapping[str, object]] = [facts] * dist.get_world_size()
    dist.all_gather_object(of_all, facts)
    for name, value in of_all[0].items():
        for rank, theirs in enumerate(of_all):
            if theirs[name] != value:
                raise SwiftError(
                    f"the processes do not agree on {name}: rank 0 has {value}, rank {rank} {theirs[name]}",
                    why="they would wait for each other at the end of the shorter one",
                    next="give every machine the same files, flags and version of swift",
                )


def all_see(folder: Path) -> bool:
    """Whether every process sees the `folder` that the first one writes to: machines may have disks of their own."""
    mark = folder / told_by_first(f".seen-{uuid4().hex}")
    first = read_int("RANK", 0) == 0
    if first:
        mark.touch()
    told_by_first(None)  # it is there
    seen = in_all(mark.exists())
    if first:
        mark.unlink()
    return seen


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
