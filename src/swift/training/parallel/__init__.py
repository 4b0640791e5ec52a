"""How weights, gradients and optimizer of a run lie over its processes, behind one seam."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel

from swift import tuners
from swift.plan.train import TrainPlan
from swift.training.parallel.gathered import Keep

if TYPE_CHECKING:
    from swift.training.parallel.sequence import SequenceGroup

ADAPTER = "default"
"""PEFT's name of the one adapter, which is part of the names of its parameters."""
Groups = list[list[str]]
"""Names of the parameters in each group of the optimizer."""


class Parallel(Protocol):
    """What a Trainer asks of the way a run is shared out. All processes call these methods together."""

    gradients_stay: bool
    """Whether each process has the gradients of a step until it is over."""
    wrapped: bool
    """Whether accelerate wraps the model; else its own modules talk to the other processes."""

    def before_optimizer(self, model: nn.Module) -> None:
        """Leave each process its share of the weights, where an optimizer has to be made of shares."""
        ...

    def after_optimizer(self, model: nn.Module) -> None:
        """The same, where it has to be made of whole weights: groups go by their shapes."""
        ...

    def frozen(self, model: nn.Module) -> None:
        """Share out a second model, which is only asked (by all processes together)."""
        ...

    def weights(self, model: nn.Module, keep: Keep) -> dict[str, Tensor] | None:
        """What is saved of the model by name, whole, as it is to `keep`; None where it is whole anyway."""
        ...

    def optimizer_state(self, optimizer: Any, model: nn.Module, groups: Groups, keep: Keep) -> dict[str, Any]:
        """The whole state by name, as it is to `keep`, laid out as `swift.training.optimizer_state` says."""
        ...

    def load_optimizer_state(self, optimizer: Any, model: nn.Module, groups: Groups, stored: dict[str, Any]) -> None:
        """Go on with a state that any of these gave."""
        ...


def sequence_group(plan: TrainPlan, model: nn.Module) -> SequenceGroup | None:
    """The processes that compute a row together with this one, where the plan has any."""
    if plan.sequence_parallel == 1:
        return None
    from swift.training.parallel.sequence import SequenceGroup

    return SequenceGroup(plan.sequence_parallel, tuners.base_model(model).config)


def saved_names(model: nn.Module) -> list[str]:
    """Which entries of the state of `model` a checkpoint holds: of an adapter all that is its own, else every one."""
    names = list(model.state_dict(keep_vars=True))
    if isinstance(model, PreTrainedModel):
        return names
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return [name for name in names if name in trained or f".{ADAPTER}" in name]


def parallel_of(plan: TrainPlan) -> Parallel:
    """The way that the plan says."""
    if plan.zero is not None:
        from swift.training.parallel.zero import Zero, Zero3

        return Zero3(plan.zero) if plan.zero.stage == 3 else Zero()
    if plan.fsdp is not None:
        from swift.training.parallel.fully_sharded import FullySharded

        return FullySharded(plan.fsdp)
    from swift.training.parallel.replicated import Replicated

    return Replicated()
