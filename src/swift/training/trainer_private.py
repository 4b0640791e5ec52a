"""What only transformers' private methods do for a checkpoint: the one file to look at when transformers moves.

Seven reasons, as of transformers 5.23 (`READ`; a test fails when the project takes another one):

- `_save_checkpoint` writes straight into `checkpoint-N` and rotates by its own rules. Callbacks hear of it afterwards,
  so a checkpoint could not be a transaction.
- `_load_from_checkpoint` loads weights in its own, lenient way. Ours are loaded when the model is built, and strictly.
- `_prepare_for_training` and `_load_optimizer_and_scheduler` read the optimizer of this very number of processes, and
  DeepSpeed's in a layout of its own. Ours is kept by name.
- Random state and scaler are read back by `_load_rng_state` and `_load_scaler`, in the layout of files that only the
  `_save_…` methods know.
- Shares of gradients are sent pass by pass, so that no process holds whole ones (`_defer_fsdp_gradient_reduction`).
- The norm of gradients that are shared out is still shares when it is logged (`_get_grad_norm`).
- The random state is restored before the first batch is drawn from a stream, which changes it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import Trainer

from swift.training import optimizer_state
from swift.training.checkpoints import OPTIMIZER
from swift.training.parallel import Groups, Parallel
from swift.training.parallel.gathered import Keep

READ = ">=5.23,<5.24"
"""The releases of transformers whose private methods were read for this."""
SCHEDULE = "scheduler.pt"


class CheckpointTrainer(Trainer):
    """`transformers.Trainer` that leaves checkpoints to `save_checkpoint`."""

    parallel: Parallel
    groups: Groups
    """Names of the parameters in each group of the optimizer, once it is made."""

    def save_checkpoint(self) -> None:
        """Called where transformers would write a checkpoint, by all processes."""
        raise NotImplementedError

    def save_training_state(self, folder: Path, keep: Keep) -> None:
        """Optimizer (as it is to `keep`), schedule, scaler and the random state of each process, into a folder.

        Called by all processes.
        """
        optimizer: Any = self.optimizer
        schedule: Any = self.lr_scheduler
        state = self.parallel.optimizer_state(optimizer, self._inner_model(), self.groups, keep)
        if self.args.should_save:
            torch.save(state, folder / OPTIMIZER)
            torch.save(schedule.state_dict(), folder / SCHEDULE)
        self._save_scaler(str(folder))
        first_of_node = self.args.process_index == self.args.local_process_index
        if first_of_node or self.args.save_on_each_node:
            self._save_rng_state(str(folder))

    def restore_random_state(self, folder: Path) -> None:
        """Put the random state of this process back to what it was when `folder` was written."""
        self._load_rng_state(str(folder))

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        """Wrap the model and make the optimizer; what a checkpoint holds of it is read here, for every engine alike."""
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        self._load_optimizer_and_scheduler(resume_from_checkpoint)
        self._load_scaler(resume_from_checkpoint)
        return prepared

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Put optimizer and schedule back to what they were when `checkpoint` was written."""
        if checkpoint is None:
            return
        optimizer: Any = self.optimizer
        schedule: Any = self.lr_scheduler
        stored = optimizer_state.read(Path(checkpoint))
        self.parallel.load_optimizer_state(optimizer, self._inner_model(), self.groups, stored)
        schedule.load_state_dict(torch.load(Path(checkpoint) / SCHEDULE, weights_only=True))

    def _defer_fsdp_gradient_reduction(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _inner_model(self) -> nn.Module:
        """The model without what was wrapped around it for several processes."""
        inner: Any = self.accelerator.unwrap_model(self.model)
        return inner

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.save_checkpoint()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Nothing: the weights of a resumed run are loaded when its model is built."""
