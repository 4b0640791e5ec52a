"""Answers with all that is known of them, as lines of `rollouts.jsonl`: whoever reads them can compute a step again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from swift.prompts.types import IGNORED
from swift.training.objectives import Batch, Setting
from swift.training.policy_gradient.shares import is_first

FILE = "rollouts.jsonl"
"""All roll-outs of a run, in its folder; in a checkpoint those of the roll-out under way."""


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One answer. Lists have a number for each of its tokens; fp32 numbers are written so that they come back equal."""

    roll_out: int
    """Which roll-out of the run it belongs to, from 0."""
    place: int
    row: int
    """The number of its prompt among the training rows."""
    origin: str
    """`file:line` of the prompt."""
    prompt_ids: list[int]
    answer_ids: list[int]
    text: str
    """Of the answer, as a user would see it and a reward function does: without special tokens and what ended it."""
    ended: bool
    engine_log_probs: list[float]
    """Under the policy at temperature 1, by the engine that sampled."""
    score: float = 0.0
    """PPO: of the reward model, less the penalty of an answer without an end. GRPO: the weighted sum of `rewards`."""
    rewards: dict[str, float | None] = field(default_factory=dict)
    """GRPO: by name."""
    trained: bool = True
    """GRPO: whether it counts in the loss."""
    log_probs: list[float] = field(default_factory=list)
    """Under the policy as it was, at the temperature of the run, by the forward pass of training."""
    ref_log_probs: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    advantages: list[float] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)

    @property
    def item(self) -> dict[str, Any]:
        """The answer as an item that trains its tokens."""
        return item(self.prompt_ids, self.answer_ids)


class Record:
    """The roll-out under way, and the file with all of them, which the first process writes."""

    def __init__(self, setting: Setting):
        self._file = setting.folder / FILE
        self.current: list[Rollout] = []
        if setting.continued is not None:
            self.current = read(setting.continued / FILE)
        if not is_first():
            return
        if self.current:
            forget_from(self._file, self.current[0].roll_out)
        write(self._file, self.current, mode="a" if self.current else "w")

    def begin(self, number: int, roll_out: Callable[[int], list[Rollout]]) -> None:
        """Make roll-out `number`, where it is not the one under way."""
        if not self.current or self.current[0].roll_out != number:
            self.current = roll_out(number)
            if is_first():
                write(self._file, self.current, mode="a")

    def of(self, batch: Batch) -> list[Rollout]:
        """The answers of a batch."""
        return [self.current[place] for place in batch["places"]]

    def save(self, folder: Path) -> None:
        """Into a checkpoint: the roll-out under way."""
        write(folder / FILE, self.current)


def item(prompt: list[int], answer: list[int]) -> dict[str, Any]:
    """Prompt and answer as an item in which the answer is trained."""
    return {"input_ids": [*prompt, *answer], "labels": [IGNORED] * len(prompt) + answer}


def write(path: Path, rollouts: Iterable[Rollout], *, mode: str = "w") -> None:
    """Write, or with mode `a` add, lines."""
    with path.open(mode, encoding="utf-8") as file:
        for rollout in rollouts:
            file.write(json.dumps(asdict(rollout), ensure_ascii=False) + "\n")


def read(path: Path) -> list[Rollout]:
    """The lines of a file."""
    with path.open(encoding="utf-8") as file:
        return [Rollout(**json.loads(line)) for line in file]


def forget_from(path: Path, first: int) -> None:
    """Leave out of a run's file roll-out number `first` and what follows, and a line that was cut: a run that goes on
    from a checkpoint has the one and makes the others again."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:  # an answer may hold other characters that end a line
        whole = [line for line in file if line.endswith("}\n")]
    path.write_text("".join(line for line in whole if json.loads(line)["roll_out"] < first), encoding="utf-8")
