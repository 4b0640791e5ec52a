"""How weights, gradients and optimizer of a run lie over its processes, behind one seam."""

from __future__ import annotations

from typing import Any, Protocol

from torch import nn

from swift.plan.train import TrainPlan

Groups = list[list[str]]
"""Names of the parameters in each group of the optimizer."""


class Parallel(Protocol):
    """What a Trainer asks of the way a run is shared out. All processes call these methods together."""

    gradients_stay: bool
    """Whether each process has the gradients of a step until it is over."""

    def optimizer_state(self, optimizer: Any, model: nn.Module, groups: Groups) -> dict[str, Any]:
        """The whole state by name, on the CPU, as `swift.training.optimizer_state` lays it out."""
        ...

    def load_optimizer_state(self, optimizer: Any, model: nn.Module, groups: Groups, stored: dict[str, Any]) -> None:
        """Go on with a state that any of these gave."""
        ...


def parallel_of(plan: TrainPlan) -> Parallel:
    """The way that the plan says."""
    if plan.zero is not None:
        from swift.training.parallel.zero import Zero

        return Zero()
    from swift.training.parallel.replicated import Replicated

    return Replicated()
