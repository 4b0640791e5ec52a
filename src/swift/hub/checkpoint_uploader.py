"""Checkpoints go to a hub while training goes on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from swift.core.errors import SwiftError
from swift.core.hubs import HubName
from swift.core.log import log
from swift.hub import push

Strategy = Literal["end", "every_save", "checkpoint", "all_checkpoints"]
NOT_OF_THE_MODEL = (
    *("optimizer*", "scheduler.*", "scaler.*", "rng_state*", "global_step*", "*.distcp", "pytorch_model_fsdp*"),
    *("zero_to_fp32.py", "latest", "training_args.bin", "trainer_state.json", "data_state.json"),
    *("*.jsonl", "*.csv", "*.tsv", "*.parquet", "*.arrow", "*.log", "infer_result", "eval_result*"),
    *("runs", "*.tfevents.*", "checkpoint-*", ".*", "__pycache__"),
)
"""Names of files and folders beside a model that are of its training, rows and answers among them."""
LAST = "last-checkpoint"


class Pusher:
    """Pushes what `strategy` asks for: the model at the root of the repository, and checkpoints in folders of it.

    `end` pushes once, `every_save` the model at each save, `checkpoint` also the whole last checkpoint, in the folder
    `last-checkpoint`, `all_checkpoints` each checkpoint under its own name. Uploads run one after another in a thread;
    one that fails is said and does not stop the training.
    """

    def __init__(self, id: str, *, hub: HubName, token: str | None, private: bool, strategy: Strategy):
        self.id = id
        self.hub: HubName = hub
        self.token = token
        self.private = private
        self.strategy = strategy
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="push")
        self._pending: list[Future[str]] = []

    def saved(self, checkpoint: Path) -> None:
        """A checkpoint is complete on disk."""
        if self.strategy == "end":
            return
        self._later(checkpoint, "", NOT_OF_THE_MODEL)
        if self.strategy == "checkpoint":
            self._later(checkpoint, LAST, ())
        elif self.strategy == "all_checkpoints":
            self._later(checkpoint, checkpoint.name, ())

    def finish(self, checkpoint: Path) -> str:
        """Push the final model, wait for everything, and return the repository's address. Raises SwiftError."""
        for future in self._pending:
            error = future.exception()
            if error is not None:
                log.warning("pushing to %s failed on the way: %s", self.id, error)
        self._thread.shutdown()
        return self._push(checkpoint, "", NOT_OF_THE_MODEL)

    def _later(self, folder: Path, path_in_repo: str, ignore: tuple[str, ...]) -> None:
        self._pending.append(self._thread.submit(self._push, folder, path_in_repo, ignore))

    def _push(self, folder: Path, path_in_repo: str, ignore: tuple[str, ...]) -> str:
        if not folder.is_dir():
            raise SwiftError(f"{folder} was removed before it could be pushed")
        return push(
            folder,
            self.id,
            hub=self.hub,
            token=self.token,
            private=self.private,
            path_in_repo=path_in_repo,
            message=f"Upload {folder.name}",
            ignore=ignore,
        )
