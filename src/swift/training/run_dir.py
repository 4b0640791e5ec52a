"""The run's folder: OUTPUT_DIR/MODEL/vN-YYYYMMDD-HHMMSS, OUTPUT_DIR itself, or the one a resumed run goes on in.

A folder holds one run. Another run's is refused or left alone, and a lock keeps two processes from writing into one.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from swift.core.errors import SwiftError
from swift.core.job_folder import report_result
from swift.core.locks import lock
from swift.core.log import log
from swift.core.transaction import fault, write_file
from swift.core.writable import removed_if_empty
from swift.plan.train import TrainPlan
from swift.training import checkpoints

VERSION = re.compile(r"v(\d+)-\d{8}-\d{6}")
LOCK = ".lock"
LOG, PROGRESS = "logging.jsonl", "global_step/max_steps"
"""What `swift.training.callbacks.progress` writes, and where a line of it tells its step."""


def run_folder(plan: TrainPlan, resume: Path | None, now: datetime) -> Path:
    """Where the run writes. A run that is resumed inside `output_dir` goes on in its own folder.

    Raises SwiftError when that folder holds another run, or later steps than the ones to go on from.
    """
    if resume is not None and not plan.group.resume_only_model and _inside(resume, plan.output_dir):
        later = _complete(resume.parent, after=checkpoints.step_of(resume))
        if not later:
            return resume.parent
        if not plan.group.add_output_dir_suffix:
            raise SwiftError(
                f"{resume.parent} holds later checkpoints than {resume.name}, up to {later[-1].name}",
                where="--output_dir",
                why="two runs in one folder would delete each other's checkpoints",
                next=f"--resume_from_checkpoint {later[-1]}, or another --output_dir",
            )
        log.info("%s goes on up to %s: this run gets a folder of its own", resume.parent, later[-1].name)
    if not plan.group.add_output_dir_suffix:
        _check_unused(plan.output_dir, again=plan.resume == "auto")
        return plan.output_dir
    models = plan.output_dir / plan.model_type
    taken = [int(match[1]) for path in models.glob("v*-*") if (match := VERSION.fullmatch(path.name))]
    return models / f"v{max(taken, default=-1) + 1}-{now:%Y%m%d-%H%M%S}"


@contextmanager
def own_folder(plan: TrainPlan, resume: Path | None, now: datetime) -> Iterator[Path]:
    """Where the run writes; a folder with a number is made at once, so that of two runs one takes the next number.

    Raises SwiftError as `run_folder` does.
    """
    while True:
        folder = run_folder(plan, resume, now)
        numbered = plan.group.add_output_dir_suffix and (resume is None or folder != resume.parent)
        with removed_if_empty(folder):
            try:
                if numbered:
                    folder.mkdir(parents=True)
            except FileExistsError:
                if folder.is_dir():
                    continue  # another run has just made it
            except OSError:
                pass  # whoever writes into it says why it cannot
            yield folder
            return


def _complete(run: Path, after: int = -1) -> list[Path]:
    return [path for path in checkpoints.checkpoints(run) if checkpoints.step_of(path) > after and fault(path) is None]


def _check_unused(folder: Path, *, again: bool) -> None:
    """Raise SwiftError for a folder with a run. `again` lets a run begin anew that saved nothing before it stopped."""
    before = _complete(folder) if again else checkpoints.checkpoints(folder)
    if before:
        raise SwiftError(
            f"{folder} holds another run, up to {before[-1].name}",
            where="--output_dir",
            why="two runs in one folder would delete each other's checkpoints",
            next=f"another --output_dir, or --resume_from_checkpoint {before[-1]} to go on with it",
        )
    if not again and (folder / LOG).is_file():
        raise SwiftError(
            f"{folder} holds the log of another run",
            where="--output_dir",
            next="another --output_dir, or --resume_from_checkpoint auto to begin it again",
        )


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make the run's folder and keep other runs out of it. What was made and stayed empty is removed at the end.

    Raises SwiftError when it cannot be written to, or another run is in it.
    """
    with removed_if_empty(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = _locked(folder / LOCK)
        except OSError as error:
            raise SwiftError(f"{folder} cannot be written to", where="--output_dir", why=str(error)) from error
        report_result(folder)
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)
            lock.close()


def _locked(path: Path) -> TextIO:
    """The open lock file at `path`, held until it is closed or the process ends, however it ends."""
    while True:
        file = path.open("a+", encoding="utf-8")
        if not lock(file.fileno(), path):
            owner = path.read_text(encoding="utf-8").strip() or "another process"
            file.close()
            raise SwiftError(
                f"another run is writing into {path.parent}",
                where="--output_dir",
                why=owner,
                next="wait for it, stop it, or use another --output_dir",
            )
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break
        file.close()  # its owner has just removed it
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}: {' '.join(['swift', *sys.argv[1:]])}\n")
    file.flush()
    return file


def _inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())


def append(file: Path, event: dict[str, Any]) -> None:
    """Add one line to a JSONL file; floats are rounded to 8 digits."""
    rounded = {name: round(value, 8) if isinstance(value, float) else value for name, value in event.items()}
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(rounded, ensure_ascii=False) + "\n")


def forget_after(folder: Path, step: int) -> None:
    """Take the lines of later steps out of the log of a run that goes on from `step`: it does those steps again."""
    file = folder / LOG
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.is_file() else []
    kept = [line for line in lines if line.endswith("\n") and _step_of(line) <= step]
    if len(kept) == len(lines):
        return
    write_file(file, "".join(kept))
    left_out = len(lines) - len(kept)
    log.info("%s: lines behind step %d are left out (%d), these steps are done again", LOG, step, left_out)


def _step_of(line: str) -> int:
    """The step that a line of the log tells of; 0 where it tells of none."""
    try:
        event = json.loads(line)
    except ValueError:
        return 0
    told = str(event.get(PROGRESS, event.get("global_step", 0))).partition("/")[0]
    return int(told) if told.isdecimal() else 0
