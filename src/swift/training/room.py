"""What a run takes of the memory, left open by the command line: large forward passes, activations that are kept.

Both are faster and take more memory, and no number depends on them. It is decided once, before the weights are loaded,
and written into the checkpoints: a run that goes on from one does the same.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from swift.core.log import log, muted
from swift.data import Built
from swift.models.free_memory import free_memory
from swift.plan.sft import SftPlan
from swift.training import process_group
from swift.training.memory_estimate import estimate, gib
from swift.training.passes import describe, most_tokens, widened

SHARE = 0.5
"""The part of the free memory that a run may fill for speed; the rest is for what is not foreseen."""


def with_room(plan: SftPlan, built: Built, source: Path, *, steps: int, per_epoch: int) -> SftPlan:
    """The plan, decided where it is not; what is decided is said, and the same in all processes."""
    undecided, wide = plan.train.recompute is None, widened(plan)
    counts = {"steps": steps, "per_epoch": per_epoch}
    kept, sizes = False, ""
    if wide is not None:
        kept, sizes = _keeps_all(wide, built, source, **counts)
        plan = wide if kept else plan
    if undecided and not kept:
        kept, sizes = _keeps_all(plan, built, source, **counts)
    if plan.train.pass_tokens is not None:
        log.info("%s", describe(plan.train, built))
    if not undecided:
        return plan
    log.info("%s: %s", "activations are kept" if kept else "activations are computed again going backward", sizes)
    return replace(plan, train=replace(plan.train, recompute=not kept))


def _keeps_all(plan: SftPlan, built: Built, source: Path, *, steps: int, per_epoch: int) -> tuple[bool, str]:
    """Whether every process has room for all of its activations, and why."""
    fits, why = _fits(plan, built, source, steps, per_epoch)
    return process_group.in_all(fits), why


def _fits(plan: SftPlan, built: Built, source: Path, steps: int, per_epoch: int) -> tuple[bool, str]:
    """Likewise, of this process."""
    train = plan.train
    tokens, free = most_tokens(plan, built), free_memory(train.device)
    if tokens is None:
        return False, "a row may have any length, so nobody knows what they take"
    if free is None:
        return False, f"{train.device} does not tell how much memory is free"
    if train.device == "cpu":
        free //= train.world_size
    keeping = replace(plan, train=replace(train, recompute=False))
    with muted():  # what there is to say of the tuner is said when it is attached
        sizes = estimate(keeping, source, tokens, steps=steps, per_epoch=per_epoch)
    if sizes is None:
        return False, "what they take is not known for this model"
    about = f"about {gib(sizes.peak)} at the peak with {tokens:,} tokens in a pass"
    return sizes.peak <= free * SHARE, f"{about}, and {gib(free)} are free"
