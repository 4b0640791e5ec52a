"""One process, or several with a whole copy each (DDP)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from swift.training import optimizer_state
from swift.training.parallel import Groups
from swift.training.parallel.gathered import Keep


class Replicated:
    """Everything is whole in every process."""

    gradients_stay = True
    wrapped = True

    def before_optimizer(self, model: nn.Module) -> None:
        """See Parallel."""

    def after_optimizer(self, model: nn.Module) -> None:
        """See Parallel."""

    def frozen(self, model: nn.Module) -> None:
        """See Parallel."""

    def weights(self, model: nn.Module, keep: Keep) -> dict[str, Tensor] | None:
        """See Parallel."""
        return None

    def optimizer_state(self, optimizer: Any, model: nn.Module, groups: Groups, keep: Keep) -> dict[str, Any]:
        """See Parallel."""
        return optimizer_state.by_name(optimizer.state_dict(), [name for names in groups for name in names])

    def load_optimizer_state(self, optimizer: Any, model: nn.Module, groups: Groups, stored: dict[str, Any]) -> None:
        """See Parallel."""
        optimizer_state.load(optimizer, optimizer_state.by_number(stored, groups, optimizer.param_groups))
