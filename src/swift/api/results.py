"""What calls of the Python API give back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift.core.did_you_mean import nearby
from swift.core.errors import SwiftError

if TYPE_CHECKING:
    from swift.api.model import Chat, Model

LOG = "logging.jsonl"


@dataclass(frozen=True)
class Run:
    """A training run by its folder."""

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder).expanduser())

    @property
    def log(self) -> list[dict[str, Any]]:
        """Every event that was logged, in order: losses, evaluations, and at the end the summary."""
        path = self.folder / LOG
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of everything that was measured, by its name in the log: loss, acc, eval_loss …"""
        events = self.log
        return {name: value for event in events for name, value in event.items() if isinstance(value, int | float)}

    @property
    def best(self) -> Path | None:
        """The checkpoint with the best evaluation, of a run that goes on or was stopped too; the last where nothing was
        evaluated, None where none was saved."""
        from swift.training.checkpoints import TRAINER_STATE

        if (last := self.last) is None:
            return None
        try:
            noted = json.loads((last / TRAINER_STATE).read_text(encoding="utf-8"))["best_model_checkpoint"]
        except (OSError, ValueError, KeyError):  # of another tool
            noted = None
        best = last if noted is None else self.folder / Path(noted).name  # wherever the run's folder lies now
        return best if best.is_dir() else last

    @property
    def last(self) -> Path | None:
        """The last checkpoint, None where none was saved."""
        from swift.training.checkpoints import checkpoints

        return next(reversed(checkpoints(self.folder)), None)

    def load(self, **flags: Any) -> Model:
        """The best checkpoint, ready to answer; `flags` are those of `swift infer`. Raises SwiftError without one."""
        from swift.api.model import load

        if not self.folder.is_dir():
            raise SwiftError(f"{self.folder} is not a folder", next=nearby(self.folder))
        if self.best is None:
            raise SwiftError(f"the run in {self.folder} has no checkpoint", next="train with save_strategy='steps'")
        return load(self.best, **flags)

    def chat(self, **flags: Any) -> Chat:
        """A conversation with the best checkpoint: `chat = run.chat(); print(chat("Who are you?"))`."""
        return self.load(**flags).chat()


@dataclass(frozen=True)
class Evaluation:
    """An evaluation by its folder."""

    folder: Path

    @cached_property
    def report(self) -> dict[str, Any]:
        """The content of report.json: facts, and a row for each subset with its score and interval."""
        return json.loads((self.folder / "report.json").read_text(encoding="utf-8"))

    @property
    def questions(self) -> list[dict[str, Any]]:
        """Every question with its answer and score."""
        from swift.evaluation.run_folder import read_records

        return read_records(self.folder)


@dataclass(frozen=True)
class Endpoint:
    """A server that answers."""

    url: str
    """Base of the OpenAI API, with /v1: what a client takes as `base_url`."""
    models: tuple[str, ...]
    """The names to ask for: the model's, then those of its adapters."""
