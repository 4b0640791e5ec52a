"""Which checkpoint a run goes on from, and with which arguments."""

from __future__ import annotations

import json
from pathlib import Path

from swift import models
from swift.core.errors import SwiftError
from swift.core.log import log
from swift.params.args import Args
from swift.params.checkpoint_args import adapter_folder
from swift.params.resume import another_run, resumed, trained_with
from swift.plan.sft import SftPlan
from swift.training import checkpoints
from swift.training.artifacts import decided


def go_on(args: Args, plan: SftPlan) -> tuple[Args, Path | None]:
    """The arguments of a run with `--resume_from_checkpoint`, and the checkpoint; None when there is none yet.

    What the user did not give is taken from the checkpoint, and what became of the rest is said. Raises SwiftError
    when the checkpoint is damaged, or cannot go on with what was given.
    """
    checkpoint = resume_point(args, plan)
    if checkpoint is None:
        return args, None
    run = resumed(args, trained_with(checkpoint), decided(plan), processes=plan.train.world_size)
    for note in run.notes:
        log.info(note)
    for warning in run.warnings:
        log.warning(warning)
    return run.args, checkpoint


def resume_point(args: Args, plan: SftPlan) -> Path | None:
    """The checkpoint to go on from, checked; `auto` takes the newest that is whole and of a run of this kind.

    Raises SwiftError when the named checkpoint is damaged or cannot be gone on from.
    """
    named, root = plan.train.resume, plan.train.output_dir
    if named is None:
        return None
    if named == "auto":
        named = checkpoints.newest(root, lambda path: _misfit(args, plan, path))
        if named is None:
            log.info("no complete checkpoint of this run in %s: it starts at step 0", root)
            return None
        log.info("going on from %s", named)
    checkpoints.require(named, whole_state=not plan.train.group.resume_only_model)
    return named


def _misfit(args: Args, plan: SftPlan, checkpoint: Path) -> str | None:
    try:
        return another_run(args, trained_with(checkpoint), plan.model.model_type)
    except SwiftError as error:
        return error.what


def check_fits(plan: SftPlan, source: Path, resume: Path) -> None:
    """Raise SwiftError when the checkpoint was made from another model than the one in `source`."""
    if adapter_folder(resume) is not None:
        models.check_base(resume, plan.model, source)
        return
    if not (resume / "config.json").is_file():
        raise SwiftError(f"{resume} holds no whole model", where="--resume_from_checkpoint", why="no config.json")
    before, now = (json.loads((folder / "config.json").read_text("utf-8")) for folder in (resume, source))
    sizes = [name for name, size in before.items() if type(size) is int and not name.endswith(("_id", "embeddings"))]
    if plan.tuner.sft_type == "llamapro":
        sizes = [name for name in sizes if name not in ("num_hidden_layers", "n_layer")]
    other = [name for name in ("model_type", *sizes) if name in now and now[name] != before[name]]
    if other:
        raise SwiftError(
            f"{resume} is not a checkpoint of {plan.model.model_type}",
            where="--model_id_or_path",
            why=f"{other[0]} is {before[other[0]]} there and {now[other[0]]} here",
            next="give the model that the run began with",
        )


def nothing_left(resume: Path, steps: int) -> bool:
    """Whether the checkpoint has done all steps of the run; says so, and how to go further."""
    state = json.loads((resume / checkpoints.TRAINER_STATE).read_text(encoding="utf-8"))
    done = state["global_step"]
    if done < steps:
        log.info("going on after step %d of %d", done, steps)
        return False
    log.info(
        "nothing left to train: %d/%d steps are done; raise --num_train_epochs or --max_steps to go on", done, steps
    )
    return True
