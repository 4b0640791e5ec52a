"""What the summed cross-entropy of a step is divided by: `--loss_name`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from swift.training.objectives import Batch

FILE = "long_ce.json"
FORGET = 0.9


class Divisor:
    """The sum of the weights of all targets, their number where rows bring none: a mean over tokens."""

    def share(self, batch: Batch) -> Tensor:
        """What a batch adds to it."""
        if "loss_scale" not in batch:
            return torch.tensor(float(len(batch["predicted_at"])))
        return at_targets(batch, "loss_scale").float().sum()

    def begin_step(self, batches: Iterable[Batch]) -> None:
        """Look at the batches of an optimizer step before any of them is asked for its share."""

    def save(self, folder: Path) -> None:
        """Write what has to be remembered into a checkpoint."""

    def load(self, folder: Path) -> None:
        """Read it again."""


class Number(Divisor):
    """`loss-scale`: the number of the targets, so that rows with small weights count less as a whole."""

    def share(self, batch: Batch) -> Tensor:
        """See Divisor."""
        return torch.tensor(float(len(batch["predicted_at"])))


class RunningLength(Divisor):
    """`long-ce`: the mean number of targets of the steps so far, so that a long step counts more than a short one.

    With n targets in a step, s <- 0.9 s + n and k <- 0.9 k + 1, both 0 at first, the divisor is s / k. It is that of
    the 2.5 release, which counts micro-batches. Evaluation divides by the plain sum.
    """

    def __init__(self) -> None:
        self._length = self._steps = 0.0
        self._factor = torch.ones(())

    def begin_step(self, batches: Iterable[Batch]) -> None:
        """See Divisor."""
        shares = [super(RunningLength, self).share(batch) * bool(batch["items"]) for batch in batches]
        of_all = torch.stack(shares).sum()
        if dist.is_initialized():
            dist.all_reduce(of_all)
        number = float(of_all)
        self._length, self._steps = FORGET * self._length + number, FORGET * self._steps + 1
        self._factor = torch.tensor(self._length / self._steps / max(number, 1e-6))

    def share(self, batch: Batch) -> Tensor:
        """See Divisor."""
        plain = super().share(batch)
        return plain * self._factor.to(plain) if torch.is_grad_enabled() else plain

    def save(self, folder: Path) -> None:
        """See Divisor."""
        (folder / FILE).write_text(json.dumps({"length": self._length, "steps": self._steps}), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """See Divisor."""
        if (folder / FILE).is_file():
            state = json.loads((folder / FILE).read_text(encoding="utf-8"))
            self._length, self._steps = state["length"], state["steps"]


DIVISORS: Mapping[str | None, type[Divisor]] = {None: Divisor, "loss-scale": Number, "long-ce": RunningLength}
"""By `--loss_name`."""


def at_targets(batch: Batch, name: str) -> Tensor:
    """(N) of a field of the batch, (B, T), at the tokens that are predicted."""
    return batch[name].reshape(-1)[batch["predicted_at"] + 1]
