"""How much of a run each of its processes holds, with each way to share it out.

The arithmetic of the ZeRO paper (arXiv 1910.02054, section 5), where the parts of one process are known: it gives its
31.4, 16.6 and 1.9 GB for 7.5 billion weights in 16 bits on 64 processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from swift.plan.train import TrainPlan

MASTER_BYTES = 4
"""Of a weight as ZeRO steps it, whatever the precision it is computed in."""


@dataclass(frozen=True, kw_only=True)
class Whole:
    """What one process by itself would hold: sizes in bytes, counts in numbers."""

    parameters: int
    trainable: int
    weights: int
    gradients: int
    states: int
    """Numbers that the optimizer keeps for each trained one."""
    layer: int
    """The weights of a decoder layer."""
    outside: int
    """The weights that are in no layer: embeddings and head."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one of the processes holds on its device, in bytes, beside activations."""

    engine: str
    """The flag that shares a run out so; none for DDP."""
    weights: int
    gradients: int
    optimizer: int
    gathered: int = 0
    """The most weights of others that are there at a time."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.gathered


DDP, ZERO_1, ZERO_2, ZERO_3 = "DDP", "ZeRO-1", "--deepspeed default-zero2", "--deepspeed default-zero3"
ZERO_2_OFFLOAD = "--deepspeed zero2-offload"
FSDP, FSDP_OFFLOAD = "--fsdp full_shard", '--fsdp "full_shard offload"'
LIVE = 10**9
"""Weights that the preset of ZeRO-3 leaves gathered (`stage3_max_live_parameters`)."""


def shares(whole: Whole, processes: int, live: int = LIVE) -> list[Share]:
    """The share of each of `processes`, from the way that sends least to the one that holds least."""

    def part(size: int) -> int:
        return ceil(size / processes)

    own = whole.states * whole.gradients
    stepped = (MASTER_BYTES + 4 * whole.states) * whole.trainable
    width = whole.weights // max(1, whole.parameters)
    fetched = min(whole.weights, max(live * width, whole.layer, whole.outside))
    root = whole.outside + 2 * whole.layer  # one is computed while the next one comes
    full = {"weights": whole.weights, "gradients": whole.gradients}
    shared = {"weights": part(whole.weights), "gradients": part(whole.gradients)}
    return [
        Share(engine=DDP, **full, optimizer=own),
        Share(engine=ZERO_1, **full, optimizer=part(stepped)),
        Share(engine=ZERO_2, weights=whole.weights, gradients=part(whole.gradients), optimizer=part(stepped)),
        Share(engine=FSDP, **shared, optimizer=part(own), gathered=min(root, whole.weights)),
        Share(engine=ZERO_3, **shared, optimizer=part(stepped), gathered=fetched),
        Share(engine=ZERO_2_OFFLOAD, weights=whole.weights, gradients=0, optimizer=0),
        Share(engine=FSDP_OFFLOAD, weights=0, gradients=0, optimizer=0, gathered=min(root, whole.weights)),
    ]


def engine_of(plan: TrainPlan) -> str:
    """The way of `shares` that a plan goes, or the nearest to it."""
    if plan.fsdp is not None:
        return FSDP_OFFLOAD if plan.fsdp.offloads else FSDP
    if plan.zero is None:
        return DDP
    if plan.zero.stage == 2 and plan.zero.offloads:
        return ZERO_2_OFFLOAD
    return (ZERO_1, ZERO_2, ZERO_3)[plan.zero.stage - 1]


def chosen_and_next(table: list[Share], engine: str, room: int | None) -> list[Share]:
    """The share of `engine`, and the next two that hold less and fit into `room` bytes; all may, where it is None."""
    (chosen,) = [share for share in table if share.engine == engine]
    smaller = [share for share in table if share.total < chosen.total and share.engine != ZERO_1]
    return [chosen, *[share for share in smaller if room is None or share.total <= room][:2]]
