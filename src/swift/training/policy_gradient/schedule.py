"""Which prompts make a roll-out, and in which order its answers are trained: all by seed and number, no state."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

from swift.training.objectives import Batch, Setting
from swift.training.preference_batches import account


def collator(setting: Setting) -> Collate:
    """What makes a batch of items of the schedule."""
    return Collate()


class Collate:
    """Only says which answers: they may not have been given yet."""

    def __call__(self, items: list[dict[str, Any]]) -> Batch:
        """The batch, with `roll_out` and the `places` in it."""
        return {"roll_out": items[0]["roll_out"], "places": [item["place"] for item in items], **account(items)}


class Schedule:
    """The training rows of a run in their order: item i belongs to micro-batch i // batch size.

    Passes over the prompts follow each other, each in an order of its own. Each prompt gets `generations` answers, side
    by side; `size` answers are a roll-out, which comes `epochs` times, each time in another order. An item is
    `roll_out` and `place` in it, and the prompt's `row`.
    """

    def __init__(self, prompts: Any, *, size: int, epochs: int, rows: int, seed: int, generations: int = 1):
        """`size` is the answers of a roll-out, `rows` the items of the whole run."""
        self.prompts, self.size, self.generations = prompts, size, generations
        self._epochs, self._rows, self._seed = epochs, rows, seed
        self.lengths = None
        """Of the items, which are not known before there are answers."""

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        time, at = divmod(index, self.size)
        roll_out, epoch = divmod(time, self._epochs)
        place = self._order(roll_out, epoch)[at]
        return {"roll_out": roll_out, "place": place, "row": self.row(roll_out, place)}

    def row(self, roll_out: int, place: int) -> int:
        """The number of the prompt at a place of a roll-out."""
        number, at = divmod((roll_out * self.size + place) // self.generations, len(self.prompts))
        return self._pass(number)[at]

    def another(self, roll_out: int, place: int, attempt: int) -> int:
        """The number of a prompt to take instead of the one at a place."""
        chance = random.Random(f"{self._seed} roll-out {roll_out} group {place // self.generations} attempt {attempt}")
        return chance.randrange(len(self.prompts))

    def origin(self, row: int) -> str:
        """`file:line` of a prompt."""
        return self.prompts.origin(row)

    def _pass(self, number: int) -> tuple[int, ...]:
        return _shuffled(len(self.prompts), f"{self._seed} pass {number}")

    def _order(self, roll_out: int, epoch: int) -> tuple[int, ...]:
        return _shuffled(self.size, f"{self._seed} roll-out {roll_out} epoch {epoch}")


def arrange(setting: Setting) -> Schedule:
    """The schedule of a run over its prompts."""
    train = setting.plan.train
    assert train.reuse is not None
    return Schedule(
        setting.rows,
        size=train.effective_batch * train.reuse.mini_batches,
        epochs=train.reuse.epochs,
        rows=setting.steps * train.effective_batch,
        seed=train.data_seed,
        generations=train.reuse.generations,
    )


@lru_cache(maxsize=4)  # a pass, an order, and those before them; not in a schedule, which workers are sent
def _shuffled(count: int, seed: str) -> tuple[int, ...]:
    numbers = list(range(count))
    random.Random(seed).shuffle(numbers)
    return tuple(numbers)
