"""The low-rank spaces that GaLore looks at gradients in, and when they are looked for anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SIDES = ("std", "reverse_std", "right", "left", "full")
"""`--galore_proj_type`."""


@dataclass(frozen=True, kw_only=True)
class Projection:
    """How gradients are projected: GaLore (Zhao et al., arXiv 2403.03507), with `lazy` Q-GaLore (arXiv 2407.08296)."""

    rank: int
    gap: int
    """Steps between two searches for the space."""
    scale: float
    side: str
    lazy: bool = False
    """Wait `gamma` times as long for the next search while the space stays the same."""
    cos_threshold: float = 0.4
    gamma: int = 2
    queue: int = 5
    """Searches whose mean similarity counts."""
    bits: int | None = None
    """Bits the space is kept in; None keeps it in the dtype of the weight."""
    group_size: int = 256

    def sides(self, shape: torch.Size) -> tuple[bool, bool]:
        """Whether a matrix of this shape is projected from the left (rows) and from the right (columns)."""
        tall = shape[0] >= shape[1]
        right = {"std": tall, "reverse_std": not tall, "right": True, "left": False, "full": True}[self.side]
        return self.side == "full" or not right, right

    def low_shape(self, shape: torch.Size) -> tuple[int, int]:
        """The shape that a matrix has in its space."""
        left, right = self.sides(shape)
        rank = min(self.rank, *shape)
        return (rank if left else shape[0], rank if right else shape[1])


class Space:
    """The space of one matrix: U (rows, rank), V (rank, columns), or both, from the singular vectors of a gradient."""

    def __init__(self, projection: Projection):
        self.projection = projection
        self.state: dict[str, Any] = {"age": 0, "gap": projection.gap, "similarities": []}
        """Tensors and numbers; `age` counts the steps since the last search."""

    def inward(self, gradient: Tensor) -> Tensor:
        """Uᵀ G V, (low_shape). Looks for the space first, when it is time."""
        if self.state["age"] % self.state["gap"] == 0:
            self._search(gradient)
        self.state["age"] += 1
        U, V = self._vectors(gradient)
        low = gradient if U is None else U.T @ gradient
        return low if V is None else low @ V.T

    def outward(self, low: Tensor) -> Tensor:
        """U L V, in the shape of the matrix, times the scale."""
        U, V = self._vectors(low)
        full = low if U is None else U @ low
        return (full if V is None else full @ V) * self.projection.scale

    def load(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on with a saved state."""
        self.state = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in state.items()}

    def _search(self, gradient: Tensor) -> None:
        left, right = self.projection.sides(gradient.shape)
        rank = min(self.projection.rank, *gradient.shape)
        vectors = torch.linalg.svd(gradient.float(), full_matrices=False)
        first = vectors[2][0] if right else vectors[0][:, 0]
        if self.projection.lazy:
            self._wait(first)
        for name, matrix in (
            ("U", vectors[0][:, :rank] if left else None),
            ("V", vectors[2][:rank] if right else None),
        ):
            if matrix is not None:
                # A view would keep all the singular vectors.
                self._keep(name, matrix.to(gradient.dtype).clone(memory_format=torch.contiguous_format))
        self.state["age"] = 0

    def _wait(self, first: Tensor) -> None:
        """Look less often for a space whose first direction stays. The sign of a singular vector means nothing."""
        before = self.state.get("first")
        if before is not None:
            similarity = torch.cosine_similarity(before, first, dim=0).abs().item()
            self.state["similarities"] = [*self.state["similarities"], similarity][-self.projection.queue :]
            recent = self.state["similarities"]
            if len(recent) == self.projection.queue and sum(recent) / len(recent) >= self.projection.cos_threshold:
                self.state["gap"] *= self.projection.gamma
        self.state["first"] = first.clone()

    def _keep(self, name: str, matrix: Tensor) -> None:
        if self.projection.bits is None:
            self.state[name] = matrix
            return
        flat = matrix.float().reshape(-1)
        groups = torch.nn.functional.pad(flat, (0, -flat.numel() % self.projection.group_size))
        groups = groups.view(-1, self.projection.group_size)
        low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
        step = ((high - low) / (2**self.projection.bits - 1)).clamp(min=1e-12)
        self.state[name] = ((groups - low) / step).round().to(torch.uint8)
        self.state |= {f"{name}.low": low, f"{name}.step": step, f"{name}.shape": list(matrix.shape)}

    def _vectors(self, like: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return self._vector("U", like), self._vector("V", like)

    def _vector(self, name: str, like: Tensor) -> Tensor | None:
        kept = self.state.get(name)
        if kept is None or self.projection.bits is None:
            return kept
        rows, columns = self.state[f"{name}.shape"]
        groups = kept.float() * self.state[f"{name}.step"] + self.state[f"{name}.low"]
        return groups.view(-1)[: rows * columns].view(rows, columns).to(like.dtype)
