"""Which of several machines save checkpoints: one where they share a disk, else all of them, if the user says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from swift.core.log import log
from swift.core.machine import Machine
from swift.plan.train import TrainPlan
from swift.training.process_group import all_see

FLAG = "--save_on_each_node"


def saving_where(plan: TrainPlan, machine: Machine, run_dir: Path) -> TrainPlan:
    """The plan, with checkpoints of each machine only where each has a disk of its own. All processes call it."""
    if machine.world_size == machine.local_world_size:
        return plan
    shared = all_see(run_dir)
    if shared and plan.group.save_on_each_node:
        log.info("%s: the machines share %s, so checkpoints are written once", FLAG, run_dir)
        return replace(plan, group=plan.group.replace(save_on_each_node=False))
    if not shared and not plan.group.save_on_each_node:
        log.warning(
            "the machines do not share %s: only the first has checkpoints, and a run cannot go on from them; "
            "use a shared --output_dir, or %s true",
            *(run_dir, FLAG),
        )
    return plan
