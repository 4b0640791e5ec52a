"""GaLore: any optimizer without a memory of the weights, with its moments in a space of low rank for chosen matrices.

For each matrix the inner optimizer steps a stand-in of the projected shape that is zero before every step; what it
becomes, projected back, is added to the matrix. So its moments are of low rank whatever the inner optimizer is, and the
whole state is tensors and numbers: `optimizer.pt` is read without running what is in it, and a resumed run is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from swift.training import optimizer_state
from swift.training.optimizers.projection import Projection, Space

Make = Callable[[list[dict[str, Any]]], Optimizer]
"""Makes an inner optimizer of parameter groups."""


class GaLore(Optimizer):
    """Steps `groups`; those with `"projected": True` hold matrices and are stepped in their spaces.

    With `at_once` a matrix is stepped as soon as its gradient is there, which is then freed: gradients of the matrices
    never exist all together. Such gradients are not clipped, and there must be one backward pass a step.
    """

    def __init__(
        self, groups: Iterable[Mapping[str, Any]], make: Make, projection: Projection, *, at_once: bool = False
    ):
        super().__init__([dict(group) for group in groups], {"projected": False})
        self.projection, self.at_once = projection, at_once
        self._inner: list[tuple[dict[str, Any], Optimizer]] = []
        self._low: dict[Tensor, tuple[Space, nn.Parameter]] = {}
        self._of_matrix: dict[Tensor, tuple[dict[str, Any], Optimizer]] = {}
        for group in self.param_groups:
            own = {name: value for name, value in group.items() if name not in ("params", "projected")}
            if not group["projected"]:
                self._inner.append((group, make([{**own, "params": group["params"]}])))
                continue
            own["weight_decay"] = 0.0  # of the matrix, not of its stand-in
            for matrix in group["params"]:
                stand_in = nn.Parameter(matrix.new_empty(0))  # has its shape while it is stepped
                self._low[matrix] = (Space(projection), stand_in)
                self._of_matrix[matrix] = (group, make([{**own, "params": [stand_in]}]))
                if at_once:
                    matrix.register_post_accumulate_grad_hook(self._step_and_free)
        first = [optimizer for _, optimizer in (*self._inner, *self._of_matrix.values())][:1]
        for group in self.param_groups:  # what schedules and resumed runs look at
            for optimizer in first:
                group |= {name: value for name, value in optimizer.defaults.items() if name not in group}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of everything that has a gradient."""
        for group, optimizer in self._inner:
            _follow(optimizer, group)
            optimizer.step()
        for matrix in self._low:
            self._step_matrix(matrix)

    @torch.no_grad()
    def _step_matrix(self, matrix: Tensor) -> None:
        if matrix.grad is None:
            return
        (space, stand_in), (group, optimizer) = self._low[matrix], self._of_matrix[matrix]
        _follow(optimizer, group)
        low = space.inward(matrix.grad)
        stand_in.data, stand_in.grad = torch.zeros_like(low), low
        optimizer.step()
        matrix.add_(space.outward(stand_in.data))
        stand_in.grad, stand_in.data = None, matrix.new_empty(0)
        matrix.mul_(1 - group["lr"] * group["weight_decay"])

    def _step_and_free(self, matrix: Tensor) -> None:
        self._step_matrix(matrix)
        matrix.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and lists of them."""
        own = super().state_dict()
        spaces = [dict(space.state) for space, _ in self._low.values()]
        return {**own, "inner": [optimizer.state_dict() for optimizer in self._all()], "spaces": spaces}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with what `state_dict` gave."""
        super().load_state_dict({name: state_dict[name] for name in ("state", "param_groups")})
        for optimizer, state in zip(self._all(), state_dict["inner"], strict=True):
            optimizer_state.load(optimizer, state)
        for (matrix, (space, _)), state in zip(self._low.items(), state_dict["spaces"], strict=True):
            space.load(state, matrix.device)

    def _all(self) -> list[Optimizer]:
        return [optimizer for _, optimizer in (*self._inner, *self._of_matrix.values())]


def _follow(optimizer: Optimizer, group: Mapping[str, Any]) -> None:
    """Give the inner optimizer the settings of its group, as schedules and resumed runs change them."""
    kept = ("params", "weight_decay") if group["projected"] else ("params",)
    for inner in optimizer.param_groups:
        inner |= {name: group[name] for name in inner if name in group and name not in kept}
