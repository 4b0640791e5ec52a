"""Checkpoints as transactions: found, checked, written whole, and only then are old ones removed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.core.transaction import MANIFEST, UNFINISHED, fault, write_folder
from swift.models import saving
from swift.params.checkpoint_args import SFT_ARGS

NAME = re.compile(r"checkpoint-(\d+)")
TRAINER_STATE = "trainer_state.json"
"""Transformers' file of the steps so far. Its own constant lies in `transformers.trainer`, which loads pandas."""
OPTIMIZER = "optimizer.pt"
REMOVED = UNFINISHED + "removed-"


def step_of(folder: Path) -> int:
    """The optimizer step in a checkpoint's name; -1 for any other folder."""
    match = NAME.fullmatch(folder.name)
    return int(match[1]) if match else -1


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run folder, oldest step first."""
    return sorted((path for path in run.glob("checkpoint-*") if step_of(path) >= 0), key=step_of)


def newest(root: Path, misfit: Callable[[Path], str | None] = lambda _: None) -> Path | None:
    """The newest complete checkpoint in or below `root` for which `misfit` gives no reason against it, or None.

    Newest is the run that was written to last, then the highest step. Each one that is passed over is named, of a run
    that does not fit only the last.
    """
    complete = [path for path in root.rglob("checkpoint-*") if step_of(path) >= 0]
    strangers: set[Path] = set()
    halves = [path for path in root.rglob(f"{UNFINISHED}checkpoint-*") if path.is_dir()]
    for half in halves:
        log.warning("skipped %s: it was being written when the run stopped", half)
    for path in sorted(complete, key=_age, reverse=True):
        if path.parent in strangers:
            continue
        if (reason := misfit(path)) is not None:
            strangers.add(path.parent)
            log.info("passed over %s: %s", path, reason)
        elif (damage := fault(path)) is not None:
            log.warning("skipped %s: %s", path, damage)
        else:
            return path
    return None


def _age(folder: Path) -> tuple[int, int]:
    return max(path.stat().st_mtime_ns for path in checkpoints(folder.parent)), step_of(folder)


def require(folder: Path, *, whole_state: bool) -> None:
    """Raise SwiftError when `folder` cannot be gone on from; `whole_state` asks for the optimizer and the rest too."""
    flag = "--resume_from_checkpoint"
    inside = checkpoints(folder)
    if step_of(folder) < 0 and (inside or not (folder / SFT_ARGS).is_file()):
        raise SwiftError(
            f"{folder} is not a checkpoint", where=flag, next=f"{flag} {inside[-1]}" if inside else f"{flag} auto"
        )
    if not whole_state and not (folder / MANIFEST).is_file():  # as swift 2.5 and others write them
        log.warning("%s has no %s: its files are taken as they are", folder, MANIFEST)
        return
    wrong = fault(folder)
    if wrong is not None:
        others = [path for path in checkpoints(folder.parent) if path != folder and fault(path) is None]
        raise SwiftError(
            f"the checkpoint {folder} is damaged",
            where=flag,
            why=wrong,
            next=f"{flag} {others[-1]}" if others else "start anew, there is no other complete checkpoint beside it",
        )
    if whole_state and not (folder / OPTIMIZER).is_file():
        raise SwiftError(
            f"{folder} holds weights only",
            where=flag,
            why="it was written with --save_only_model true, so optimizer, schedule and random state are missing",
            next="add --resume_only_model true to start a new run from these weights",
        )


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """Yield a scratch folder that becomes `target` when everything in it is written and synced.

    An older folder of that name is the future of a run that went back to an earlier step; it makes room first.
    Raises SwiftError when the disk does not take the files; whatever was there before is then still there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        remove(target)
    try:
        with write_folder(target) as scratch:
            yield scratch
    except saving.FAILURES as error:
        why = saving.unwritten(error)
        if why is None:
            raise
        raise _unwritable(target, why) from error


def require_room(target: Path, needed: int) -> None:
    """Raise SwiftError before a single byte is written when the disk has less than `needed` bytes free."""
    target.parent.mkdir(parents=True, exist_ok=True)  # on each machine, where they have disks of their own
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise _unwritable(target, f"it needs {needed / 2**20:,.0f} MiB and {free / 2**20:,.0f} MiB are free")


def require_room_for_one(run: Path, needed: int) -> None:
    """Raise SwiftError before the first step when a checkpoint of at least `needed` bytes does not fit into `run`."""
    free = shutil.disk_usage(run).free
    if free < needed:
        raise SwiftError(
            "there is no room for a checkpoint",
            where=str(run),
            why=f"one takes at least {needed / 2**20:,.1f} MiB, and {free / 2**20:,.1f} MiB are free on this disk",
            next="make room, write to another disk (--output_dir), or leave the optimizer out (--save_only_model true)",
        )


def _unwritable(target: Path, why: str) -> SwiftError:
    before = [path for path in checkpoints(target.parent) if path != target]
    kept = f"the last complete checkpoint is {before[-1]}" if before else "no checkpoint was complete yet"
    return SwiftError(
        f"{target} could not be written",
        where=str(target.parent),
        why=f"{why}; {kept}",
        next="make room, then run the same command with --resume_from_checkpoint auto" if before else "make room",
    )


def rotate(run: Path, limit: int | None, keep: set[Path]) -> list[Path]:
    """Remove the oldest checkpoints of `run` until `limit` are left, never one of `keep` or the last. -> removed."""
    present = checkpoints(run)
    if limit is None or not present:
        return []
    safe = {path.resolve() for path in keep} | {present[-1].resolve()}
    spare = [path for path in present if path.resolve() not in safe]
    surplus = spare[: max(0, len(present) - limit)]
    for path in surplus:
        remove(path)
    return surplus


def remove(folder: Path) -> None:
    """Delete a checkpoint so that a crash on the way never leaves half of it under its name."""
    aside = folder.with_name(REMOVED + folder.name)
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    shutil.rmtree(aside)


def size(folder: Path) -> int:
    """Bytes of all files in `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
