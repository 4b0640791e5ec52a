"""What only transformers' private methods do for a checkpoint: the one file to look at when transformers moves.

Four reasons, as of transformers 5.23 (`READ`; a test fails when the project takes another one):

- `_save_checkpoint` writes straight into `checkpoint-N` and rotates by its own rules. Callbacks hear of it afterwards,
  so a checkpoint could not be a transaction.
- `_load_from_checkpoint` loads weights in its own, lenient way. Ours are loaded when the model is built, and strictly.
- Optimizer, schedule and random state are read back by `_load_optimizer_and_scheduler` and `_load_rng_state`, in the
  layout of files that only the `_save_…` methods know.
- The random state is restored before the first batch is drawn from a stream, which changes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer

READ = ">=5.23,<5.24"
"""The releases of transformers whose private methods were read for this."""


class CheckpointTrainer(Trainer):
    """`transformers.Trainer` that leaves checkpoints to `save_checkpoint`."""

    def save_checkpoint(self) -> None:
        """Called where transformers would write a checkpoint, by all processes."""
        raise NotImplementedError

    def save_training_state(self, folder: Path) -> None:
        """Optimizer, schedule, scaler and the random state of each process, into a folder this node writes."""
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        first_of_node = self.args.process_index == self.args.local_process_index
        if first_of_node or self.args.save_on_each_node:
            self._save_rng_state(str(folder))

    def restore_random_state(self, folder: Path) -> None:
        """Put the random state of this process back to what it was when `folder` was written."""
        self._load_rng_state(str(folder))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.save_checkpoint()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Nothing: the weights of a resumed run are loaded when its model is built."""
