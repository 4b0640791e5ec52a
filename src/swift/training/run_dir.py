"""The run's folder: OUTPUT_DIR/MODEL/vN-YYYYMMDD-HHMMSS, OUTPUT_DIR itself, or the one a resumed run goes on in."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.plan.train import TrainPlan
from swift.training import checkpoints

VERSION = re.compile(r"v(\d+)-\d{8}-\d{6}")


def run_folder(plan: TrainPlan, resume: Path | None, now: datetime) -> Path:
    """Where the run writes. A run that is resumed inside `output_dir` goes on in its own folder."""
    if resume is not None and not plan.group.resume_only_model and _inside(resume, plan.output_dir):
        return resume.parent
    if not plan.group.add_output_dir_suffix:
        return plan.output_dir
    models = plan.output_dir / plan.model_type
    taken = [int(match[1]) for path in models.glob("v*-*") if (match := VERSION.fullmatch(path.name))]
    return models / f"v{max(taken, default=-1) + 1}-{now:%Y%m%d-%H%M%S}"


def resume_point(plan: TrainPlan) -> Path | None:
    """The checkpoint to go on from, checked; None for a run that starts anew.

    Raises SwiftError when the named checkpoint is damaged or cannot be gone on from.
    """
    if plan.resume is None:
        return None
    if plan.resume == "auto":
        found = checkpoints.newest(plan.output_dir)
        if found is None:
            log.info("no complete checkpoint in %s: the run starts at step 0", plan.output_dir)
            return None
        log.info("going on from %s", found)
    else:
        found = plan.resume
    checkpoints.require(found, whole_state=not plan.group.resume_only_model)
    return found


def make_run_dir(folder: Path) -> None:
    """Create the run's folder. Raises SwiftError when it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".tmp-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SwiftError(f"{folder} cannot be written to", where="--output_dir", why=str(error)) from error


def _inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())
