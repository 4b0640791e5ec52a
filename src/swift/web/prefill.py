"""Forms that begin with values: those of a job again, and those with which a run goes on from a checkpoint."""

from __future__ import annotations

from pathlib import Path

from swift.core.errors import SwiftError
from swift.params.checkpoint_args import read_saved
from swift.params.commands import COMMANDS
from swift.params.form import text_of
from swift.params.parse import read
from swift.params.secrets import SECRETS
from swift.web.jobs import Job
from swift.web.studio import Studio

RESUMED = (
    *("model_type", "model_id_or_path", "model_revision", "custom_register_path", "custom_dataset_info"),
    *("dataset", "val_dataset", "rlhf_type", "template_type"),
)
"""What a resumed run has to be told; the rest it takes from its checkpoint."""


def of_job(job: Job) -> dict[str, str]:
    """What was given to a job, as the fields of the form."""
    args = read(job.words).args
    flags = COMMANDS[args.command].flags
    return {
        name: text_of(flags[name], value)
        for name, value in args.values.items()
        if args.is_explicit(name) and name not in SECRETS
    }


def of_resume(studio: Studio, command: str, checkpoint: Path) -> dict[str, str]:
    """How a run goes on from a checkpoint: as the job that wrote it began, or, begun elsewhere, as it was recorded."""
    place = {"resume_from_checkpoint": str(checkpoint)}
    run = checkpoint.parent.resolve()
    for job in studio.jobs.all():
        if job.result == run and job.command == command:
            return {**of_job(job), **place}
    saved = read_saved(str(checkpoint))
    if not saved:
        raise SwiftError(f"{checkpoint} does not say how it was trained", next="fill the form")
    flags = COMMANDS[command].flags
    known = {name: saved[name] for name in RESUMED if name in flags and name in saved}
    if known.get("model_id_or_path"):
        known.pop("model_type", None)  # it may be a name that nothing is registered under
    changed = {name: value for name, value in known.items() if value not in (None, [], flags[name].default)}
    texts = {name: text_of(flags[name], value) for name, value in changed.items()}
    return {**texts, "output_dir": str(run), **place}
