"""`--rehearse`: a step on the longest rows, an evaluation and a checkpoint before the first step, and no trace of them.

What would end a run after hours (memory for the longest rows, a full disk, an evaluation that fails) shows in its first
minute.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset

from swift.core.errors import Interrupted, SwiftError
from swift.core.log import log, muted
from swift.models import saving
from swift.training import checkpoints
from swift.training.callbacks.stop import on_signal_exit_code
from swift.training.chance import same_chance
from swift.training.loop import Run, build, require_room
from swift.training.memory_estimate import kept_checkpoints
from swift.training.smaller_batches import free, out_of_memory, say_smaller, smaller
from swift.training.throughput import peak_memory


def rehearsed(run: Run) -> Run:
    """Rehearse. -> the run, with smaller micro-batches and more of them a step where memory was short.

    Its model and the state of chance are as they were. Raises what goes wrong otherwise, and a lack of memory for
    single rows. One process: the others would wait for one that runs out of memory.
    """
    require_room(run)
    while True:
        started = time.monotonic()
        try:
            tokens, size = _once(run)
        except RuntimeError as error:
            less = smaller(run.plan) if out_of_memory(error) else None
            if less is None:
                raise
        else:
            seconds = time.monotonic() - started
            shown = f"{tokens:,} tokens in the step, {peak_memory():.2f} GiB at the peak, {seconds:.1f} s"
            log.info("rehearsed %s: %s", _rehearsed(run), shown)
            _say_room(run, size)
            return run
        say_smaller(run.plan, less, "with the rehearsal")
        run = replace(run, plan=less)
        free()


def _rehearsed(run: Run) -> str:
    parts = ["a step of the longest rows"]
    if run.val is not None:
        answers = "" if run.evaluator is None else ", without the answers of --predict_with_generate"
        parts.append(f"an evaluation of the longest validation rows{answers}")
    if run.plan.group.save_strategy != "no":
        parts.append("a checkpoint")
    return "; ".join(parts)


def _say_room(run: Run, size: int) -> None:
    """Warn where the disk takes one checkpoint of so many bytes, as was seen, and not all that the run leaves."""
    plan, rows = run.plan, len(run.train)
    per_epoch, steps = plan.steps(rows)
    count, free_bytes = kept_checkpoints(plan, run.steps or steps, per_epoch), shutil.disk_usage(run.folder).free
    if count * size > free_bytes:
        log.warning(
            "%s has %s MiB free, and %d checkpoints of %s MiB each will be kept: make room, or set --save_total_limit",
            *(run.folder, f"{free_bytes / 2**20:,.1f}", count, f"{size / 2**20:,.1f}"),
        )


def _once(run: Run) -> tuple[int, int]:
    """-> tokens of the step, bytes of the checkpoint."""
    with tempfile.TemporaryDirectory(prefix=".tmp-rehearsal-", dir=run.folder) as scratch, same_chance():
        short = _short(run, Path(scratch))
        with _as_before(run, Path(scratch)), muted():
            trainer = build(short)
            with trainer.stop.listening():
                trainer.train()
                if short.val is not None and not any("eval_loss" in event for event in trainer.state.log_history):
                    trainer.evaluate()
                if run.plan.group.save_strategy != "no":
                    trainer.save_checkpoint()
            size = sum(checkpoints.size(path) for path in checkpoints.checkpoints(Path(scratch)))
            received = trainer.stop.received
    if received is not None:
        raise Interrupted("stopped by a signal in the rehearsal", exit_code=on_signal_exit_code(received))
    return sum(short.lengths or ()), size


def _short(run: Run, scratch: Path) -> Run:
    """One step of the longest rows, below `scratch`."""
    plan = run.plan
    quiet = plan.group.replace(report_to=("none",), disable_tqdm=True, auto_find_batch_size=False, save_strategy="no")
    assert run.lengths is not None, "flags see to it that rows have known lengths"
    train = _longest(run.lengths, plan.batch_size * plan.accumulation)
    val = _longest(run.val_lengths or (), plan.eval_batch_size)
    return replace(
        run,
        plan=replace(plan, group=quiet, best_metric="loss"),  # answers are not written, and have no metrics
        folder=scratch,
        train=Subset(run.train, train),
        lengths=[run.lengths[number] for number in train],
        val=Subset(run.val, val) if val and run.val is not None else None,
        val_lengths=[(run.val_lengths or ())[number] for number in val],
        steps=1,
        resume=None,
        evaluator=None,
        pusher=None,
    )


def _longest(lengths: Sequence[int], count: int) -> list[int]:
    return sorted(range(len(lengths)), key=lambda number: -lengths[number])[:count]


@contextmanager
def _as_before(run: Run, folder: Path) -> Iterator[None]:
    """Put what is trained back at the end; it is kept in a file, since memory is what a rehearsal measures."""
    trained: dict[str, Any] = {name: p for name, p in run.model.named_parameters() if p.requires_grad}
    file = folder / "before.pt"
    try:
        torch.save({name: p.detach() for name, p in trained.items()}, file)
    except saving.FAILURES as error:
        why = saving.unwritten(error)
        if why is None:
            raise
        raise SwiftError(
            "there is no room for a rehearsal",
            where=str(run.folder),
            why=f"{why}: what is trained is kept in a file until its end",
            next="make room, write to another disk (--output_dir), or leave --rehearse out",
        ) from error
    try:
        yield
    finally:
        run.objective.go_on_from(None if run.plan.group.resume_only_model else run.resume)
        before = torch.load(file, mmap=True, weights_only=True)
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.requires_grad_(True).copy_(before[name])
                parameter.grad = None
