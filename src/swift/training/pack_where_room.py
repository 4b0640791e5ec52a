"""Whether a run packs its frozen layers (`swift.training.frozen_layers`), where the command line leaves it open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from swift.data import Built
from swift.models.free_memory import free_memory
from swift.models.integrity import weight_files
from swift.plan.sft import SftPlan
from swift.training import process_group

SHARE = 0.25
"""The part of the free memory that the second copy may fill."""
PAYS_FROM = 2_000
"""Tokens of a process over the run from which packing saves more time than it takes, whatever the size of the model."""


def with_packed_layers(plan: SftPlan, built: Built, source: Path, steps: int) -> SftPlan:
    """The plan, decided where it is not, and the same in all processes: packed where there is room for it and it pays.

    `source` has the files of the weights. Whoever computes activations again has no memory to spare.
    """
    train = plan.train
    if train.pack_frozen is not None:
        return plan
    stored, free = sum(path.stat().st_size for path in weight_files(source)), free_memory("cpu")
    fits = not train.recompute and free is not None and 2 * stored <= free * SHARE / train.world_size
    packs = process_group.in_all(fits) and _pays(plan, built, steps)
    return replace(plan, train=replace(train, pack_frozen=packs))


def _pays(plan: SftPlan, built: Built, steps: int) -> bool:
    """A stream, or answers that are still to be written, are taken for long."""
    lengths = built.train.lengths
    if lengths is None or (plan.alignment is not None and plan.alignment.answers is not None):
        return True
    rows = plan.train.batch_size * plan.train.accumulation * steps
    return float(lengths.mean()) * rows >= PAYS_FROM
