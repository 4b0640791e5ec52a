"""Named causes of a run that does not learn: each is told once, with what to do, and kept in the run's folder.

What makes learning impossible stops a run (`swift.data.build`: no trained token, answers that would not learn to end;
`swift.training.callbacks.loss_watch`: losses that are no numbers, no gradient). Here is what only looks wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swift.core.errors import CheckFailed
from swift.core.log import log
from swift.prompts.types import IGNORED
from swift.training.callbacks.progress import append

FILE = "why_not_learning.jsonl"
LOOKED_AT = 256
"""Rows whose answers are compared; too few to cost time, and enough to see that all are the same."""
FEW_ANSWERS = 8
"""Fewer equal answers than this may be chance, or all that there is to learn."""
COMPARED = 20_000
"""Training rows that are compared with those of validation, which takes half a second."""
LONG_ENOUGH = 50
"""Optimizer steps after which a loss at the level of chance is told."""


class Rows(Protocol):
    """Encoded examples by number."""

    def __len__(self) -> int: ...
    def __getitem__(self, place: int, /) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Cause:
    """Why a run does not learn, or seems to and does not."""

    cause: str
    why: str
    next: str


def in_rows(train: Rows, val: Rows | None, lengths: Sequence[int]) -> list[Cause]:
    """What encoded rows show before the first step; `lengths` are those of the training rows. Pairs say nothing."""
    if "labels" not in train[0]:
        return []
    causes = [_same_answers(train), None if val is None else _seen_rows(train, val, lengths)]
    return [cause for cause in causes if cause is not None]


def _same_answers(train: Rows) -> Cause | None:
    places = range(0, len(train), max(1, len(train) // LOOKED_AT))
    answers = {tuple(label for label in train[place]["labels"] if label != IGNORED) for place in places}
    if len(places) < FEW_ANSWERS or len(answers) > 1:
        return None
    return Cause(
        "identical answers",
        f"the {len(places)} rows that were looked at all have the same answer",
        "look at the column of the answers (--columns names it): a model learns to say this, whatever is asked",
    )


def _seen_rows(train: Rows, val: Rows, lengths: Sequence[int]) -> Cause | None:
    """Only rows of training are read that are as long as one of validation."""
    own = [tuple(val[place]["input_ids"]) for place in range(len(val))]
    wanted = {len(tokens) for tokens in own}
    places = (place for place, length in enumerate(lengths) if int(length) in wanted)
    seen = {hash(tuple(train[place]["input_ids"])) for place in islice(places, COMPARED)}
    both = sum(hash(tokens) in seen for tokens in own)
    if not both:
        return None
    return Cause(
        "evaluation rows inside the training rows",
        f"{both} of {len(own)} rows of validation are trained on too, token for token",
        "take them out of --dataset, or give others as --val_dataset: eval_loss falls while nothing general is learned",
    )


class Notebook:
    """Tells each cause once and keeps it in the run's folder."""

    def __init__(self, folder: Path):
        self._file, self._told = folder / FILE, set[str]()

    def tell(self, cause: Cause, step: int) -> None:
        """As a warning and as a line of the file."""
        if cause.cause in self._told:
            return
        self._told.add(cause.cause)
        log.warning("why it may not learn: %s: %s; %s", cause.cause, cause.why, cause.next)
        append(self._file, {"step": step, **asdict(cause)})

    def keep(self, error: CheckFailed, step: int) -> None:
        """A cause that stopped the run, which is told by the error itself."""
        append(
            self._file, {"step": step, "cause": error.what, "why": error.why, "where": error.where, "next": error.next}
        )


class WatchedCurves(TrainerCallback):
    """What the log lines show while it runs. `vocabulary` is the number of tokens that answers are drawn from."""

    def __init__(self, notebook: Notebook, vocabulary: int):
        self._notebook, self._vocabulary = notebook, vocabulary
        self._lines: list[Mapping[str, Any]] = []

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Look at a line of training, beside those before."""
        if logs is None or "loss" not in logs:
            return
        self._lines.append(logs)
        for cause in self._causes(state.global_step, state.max_steps):
            self._notebook.tell(cause, state.global_step)

    def _causes(self, step: int, last: int) -> Iterator[Cause]:
        two = self._lines[-2:]
        if len(two) == 2 and step < last and all(line.get("learning_rate") == 0 for line in two):
            yield Cause(
                "a learning rate of 0",
                f"it was 0 at two lines of the log, up to step {step} of {last}",
                "look at --learning_rate, --lr_scheduler_type, --warmup_steps and --warmup_ratio",
            )
        if len(two) == 2 and all(line.get("frac_reward_zero_std") == 1 for line in two):
            yield Cause(
                "rewards without variance",
                "all answers to a question got the same reward, twice in a row",
                "look at answers and rewards: a reward that nothing reaches or everything gets teaches nothing; "
                "raise --temperature, or give easier rows",
            )
        if step >= LONG_ENOUGH:
            yield from self._at_chance(step)

    def _at_chance(self, step: int) -> Iterator[Cause]:
        losses = [float(line["loss"]) for line in self._lines]
        of_pairs = "rewards/margins" in self._lines[-1]
        chance = math.log(2) if of_pairs else math.log(self._vocabulary)
        late, early = _mean(losses[-5:]), _mean(losses[:5])
        of_tokens = "acc" in self._lines[-1]
        close = abs(late - chance) < 0.002 if of_pairs else of_tokens and late > 0.98 * chance
        if close and late > 0.995 * early:
            yield Cause(
                "a loss at the level of chance",
                f"it is {late:.3g} after {step} steps and was {early:.3g}; guessing gives {chance:.3g}",
                "is the base a trained model, in its own tokenizer and template? else raise --learning_rate",
            )


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)
