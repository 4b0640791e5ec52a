"""What the lines of the log show of a run that does not learn, while it goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from swift.training.why_not_learning import Cause, Notebook

LONG_ENOUGH = 20
"""Optimizer steps from half the peak of the learning rate on after which a loss that stands still is told."""
LINES = 6
"""Lines of the log that are needed to see whether it does: the last third is compared with the first."""
CHANCE_OF_PAIRS = math.log(2)

REGULARIZER = "regularizer"
"""The name of what a tuner adds to the loss of the rows."""


class WatchedCurves(TrainerCallback):
    """Looks at each line of training beside those before.

    `vocabulary` is the number of tokens that each is chosen from; None where the loss is no mean over tokens. `warmup`
    is the number of steps of warm-up.
    """

    def __init__(self, notebook: Notebook, vocabulary: int | None, warmup: int = 0):
        self._notebook, self._vocabulary, self._warmup = notebook, vocabulary, warmup
        self._lines: list[Mapping[str, Any]] = []
        self._warm: int | None = None
        """The step at which the learning rate had reached half of its peak."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the schedule."""
        last = state.max_steps
        if self._warmup <= last:
            return
        reached = args.learning_rate * (last - 1) / self._warmup
        cause = Cause(
            "a warm-up longer than the run",
            f"it takes {self._warmup} steps, the run {last}: the learning rate gets to {reached:.2g} and never to "
            f"{args.learning_rate:.2g}",
            f"--warmup_steps well below {last}, --warmup_ratio 0.05, or more steps",
        )
        self._notebook.tell(cause, state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Look at a line."""
        if logs is None or "loss" not in logs:
            return
        self._lines.append(logs)
        if self._warm is None and 2 * logs.get("learning_rate", 0.0) >= args.learning_rate:
            self._warm = state.global_step
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
        yield from self._of_loss(step)

    def _of_loss(self, step: int) -> Iterator[Cause]:
        losses = [float(line["loss"]) - line.get(REGULARIZER, 0.0) for line in self._lines]
        of_pairs = "rewards/margins" in self._lines[-1]
        if not of_pairs and (self._vocabulary is None or "acc" not in self._lines[-1]):
            return
        chance = CHANCE_OF_PAIRS if self._vocabulary is None or of_pairs else math.log(self._vocabulary)
        if _of_pairs_grown(losses) if of_pairs else _of_tokens_grown(losses, chance):
            yield Cause(
                "a loss that grows",
                f"it is {losses[-1]:.3g} at step {step} and was {losses[0]:.3g}; guessing gives {chance:.3g}",
                "lower --learning_rate: the steps overshoot, and what the model knew is being lost",
            )
        elif not of_pairs and len(losses) >= 2 and min(losses) > 1.1 * chance:
            yield Cause(
                "a loss worse than guessing",
                f"it is {losses[-1]:.3g} at step {step}; guessing among {self._vocabulary} tokens gives {chance:.3g}",
                "do weights and tokenizer in --model_id_or_path belong together? look at the first row of --dry_run",
            )
        elif self._warm is not None and step - self._warm >= LONG_ENOUGH and len(losses) >= LINES:
            yield from self._at_chance(losses, chance, of_pairs, step)

    def _at_chance(self, losses: Sequence[float], chance: float, of_pairs: bool, step: int) -> Iterator[Cause]:
        third = len(losses) // 3
        late, early = _mean(losses[-third:]), _mean(losses[:third])
        close = abs(late - chance) < 0.002 if of_pairs else late > 0.98 * chance
        if close and late > 0.998 * early:
            yield Cause(
                "a loss at the level of chance",
                f"it is {late:.3g} after {step} steps and was {early:.3g}; guessing gives {chance:.3g}",
                "is the base a trained model, in its own tokenizer and template? else raise --learning_rate",
            )


def _of_tokens_grown(losses: Sequence[float], chance: float) -> bool:
    """Whether more was known than guessing gives, and is no more; or the loss has left what rows differ by."""
    if len(losses) < 3:
        return False
    known = min(losses) < 0.8 * chance
    many = losses[-max(3, len(losses) // 2) :]
    higher = len(losses) >= 5 and min(many) > max(1.5 * max(losses[:2]), max(losses[:2]) + 1)
    return higher or (known and _mean(losses[-3:]) > chance) or min(losses[-2:]) > 1.5 * max(chance, losses[0])


def _of_pairs_grown(losses: Sequence[float]) -> bool:
    return len(losses) >= 5 and _mean(losses[-5:]) > 1.5 * max(CHANCE_OF_PAIRS, losses[0])


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)
