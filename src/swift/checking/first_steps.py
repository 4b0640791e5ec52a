"""The first steps of a run, trained again from what its folder says, against the losses in its log."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping
from contextlib import chdir
from dataclasses import dataclass, replace
from pathlib import Path

from swift.catalog import load_catalog
from swift.core.errors import SwiftError, raise_together
from swift.core.log import log
from swift.core.machine import Machine
from swift.core.probe import probe
from swift.params.args import Args
from swift.params.checkpoint_args import EARLIER_STEPS, command_lines
from swift.params.groups import Data, Model
from swift.params.parse import Parsed, read
from swift.plan.mistakes import mistakes
from swift.plan.sft import plan_sft
from swift.reports.run_files import Run, steps_of
from swift.training.artifacts import saved_args
from swift.training.loop import train
from swift.training.prepare import prepare
from swift.training.run_inputs import changes, inputs
from swift.training.run_report import environment
from swift.training.train import with_model

Losses = Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class Verified:
    """Losses by step as they were logged, and as they came now."""

    folder: Path
    logged: Losses
    again: Losses
    changed: Mapping[str, tuple[object, object]]
    """What of the environment, of the rows and of the code is another: as it was, as it is."""

    @property
    def same(self) -> bool:
        """Whether every digit is."""
        return self.logged == self.again

    def text(self) -> str:
        """A line a step, and what may explain a difference."""
        lines = ["step        logged         again"]
        for step, loss in self.logged.items():
            again = self.again.get(step)
            shown = "-" if again is None else f"{again:.8f}"
            lines.append(f"{step:>4}  {loss:>12.8f}  {shown:>12}  {'same' if again == loss else 'differs'}")
        if self.same:
            steps = max(self.logged)
            give = "step gives the same loss" if steps == 1 else f"{steps} steps give the same losses"
            lines.append(f"{self.folder}: the first {give}, to the last digit")
        else:
            lines.append(f"{self.folder}: the losses differ")
        lines += [f"  {name} was: {was}, and is: {now}" for name, (was, now) in self.changed.items()]
        if not self.same and not self.changed:
            lines.append("  versions, devices, threads, rows, weights and code are the same: an environment variable,")
            lines.append("  media beside the rows, or operations that come out otherwise each time on this device")
        return "\n".join(lines)


def verify(folder: Path, steps: int) -> Verified:
    """Train `steps` steps again; where none of them was logged, as many as up to the first that was.

    It happens in the folder that the run was started in, where that is still there, since its command line names files.
    Raises SwiftError for a folder that holds no run, and for one that cannot be trained again here.
    """
    run, machine = Run(folder.resolve()), probe()
    logged = _losses(run, steps)
    started_in = Path(str(run.environment.get("working folder", ".")))
    with (
        chdir(started_in if started_in.is_dir() else Path()),
        tempfile.TemporaryDirectory(prefix="swift-verify-") as scratch,
    ):
        args, until = _args_of(run, machine)
        logged = {step: loss for step, loss in logged.items() if until is None or step <= until}
        if not logged:
            raise SwiftError(f"{run.folder} logged no step before it went on from step {until}")
        again, read = _again(args, machine, Path(scratch), max(logged))
        changed = changes(run.environment, {**environment(machine), **read})
    again = {step: loss for step, loss in again.items() if step in logged}
    return Verified(folder=folder, logged=logged, again=again, changed=changed)


def _losses(run: Run, steps: int) -> Losses:
    if not run.folder.is_dir():
        raise SwiftError(
            f"there is no folder {run.folder}", next="name the folder of a run: the one with logging.jsonl"
        )
    logged = steps_of(run.events, "loss")
    if not logged:
        raise SwiftError(
            f"{run.folder} holds no logged step", next="name the folder of a run: the one with logging.jsonl"
        )
    return {step: loss for step, loss in logged.items() if step <= max(steps, min(logged))}


def _args_of(run: Run, machine: Machine) -> tuple[Args, int | None]:
    """The flags the run was started with, those that place it left out, and the step up to which they count.

    Raises SwiftError.
    """
    processes = int(run.args.get("world_size", 1))
    if processes != machine.world_size:
        raise SwiftError(
            f"{run.folder} was trained by {processes} processes, and this is {machine.world_size}",
            why="sums come in another order",
            next="only runs of one process can be trained again here" if processes > 1 else "leave NPROC_PER_NODE out",
        )
    parsed, until = _begun_with(run)
    args = parsed.args
    if _goes_on_in(run, args):
        args = args.with_values(resume_from_checkpoint=None)  # the first steps are those before it
    raise_together([*parsed.errors, *mistakes(args, unsure=bool(parsed.errors))])
    if args.values["resume_from_checkpoint"]:
        raise SwiftError(f"{run.folder} goes on from a checkpoint of another run", next="verify that one")
    return args, until


def _begun_with(run: Run) -> tuple[Parsed, int | None]:
    """The command line that began the run, not those it went on with in its own folder, and the last step that it did.

    None for the step where it did all. Raises SwiftError.
    """
    lines, until = command_lines(run.args), [*run.args.get(EARLIER_STEPS, ()), None]
    while lines:
        words = shlex.split(lines.pop())[1:]
        if not words or words[0] not in ("sft", "pt", "rlhf"):
            break
        parsed = read(words)
        if not lines or not _goes_on_in(run, parsed.args):
            return parsed, until[min(len(lines), len(until) - 1)]
    raise SwiftError(f"{run.folder} does not say with which command line it was trained")


def _goes_on_in(run: Run, args: Args) -> bool:
    resume = args.values["resume_from_checkpoint"]
    return resume == "auto" or (resume and Path(resume).expanduser().resolve().parent == run.folder.resolve())


def _again(args: Args, machine: Machine, folder: Path, steps: int) -> tuple[Losses, dict[str, str]]:
    """-> the losses, and fingerprints of what was read."""
    catalog = load_catalog(args[Model].custom_register_path, args[Data].custom_dataset_info)
    prepared = prepare(plan_sft(args, catalog, machine), catalog, None, None)
    arguments = saved_args(args, prepared.plan, machine, folder, prepared.encoder.template_type)
    run = with_model(prepared, arguments, folder, None)
    log.info("the first %d of %s steps again", steps, prepared.steps)
    group = run.plan.group.replace(save_strategy="no", report_to=("none",), disable_tqdm=True)
    train(replace(run, plan=replace(run.plan, group=group), last_step=steps))
    return steps_of(Run(folder).events, "loss"), inputs(args, prepared.plan, prepared.source)
