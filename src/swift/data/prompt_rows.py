"""Rows to answer, in order and complete: the prompt, the answer the row itself has, or why it cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from swift.data.bad_row import BadRow
from swift.data.preprocess import Recipe, chunks, read_row, without_answer
from swift.data.table import Part, open_part
from swift.plan.data import DataPlan
from swift.prompts.types import Conversation, Message, Origin, Preference


@dataclass(frozen=True)
class Question:
    """One row. Either `conversation` ends with the turn to answer, or `fault` says what is wrong with the row."""

    origin: Origin
    conversation: Conversation | None
    label: str | None = None
    fault: str | None = None


def questions(plan: DataPlan, *, as_trained: bool = False) -> list[Question]:
    """The validation rows of the plan: those of its validation data sets, or those split off its training data sets.

    A validation data set that is used whole gives every row, the unusable ones too. With `as_trained` only rows that
    training could use are chosen from, so that a split repeats. Raises SwiftError when a data set cannot be read.
    """
    recipe = Recipe("chat" if as_trained else "prompt")
    parts = [(spec.sample < 0, open_part(spec, plan, recipe, None, validation=True)) for spec in plan.val]
    if not plan.val:
        parts = [(False, open_part(spec, plan, recipe, None)) for spec in plan.train]
    return [question for whole, part in parts for question in _of_part(part, whole)]


def _of_part(part: Part, whole: bool) -> Iterator[Question]:
    table = part.table
    chosen = np.arange(len(table)) if whole else part.val
    found: dict[tuple[int, int], Question] = {}
    for number, file in enumerate(table.files):
        rows = table.index[chosen[table.file[chosen] == number]]
        if not len(rows):
            continue
        wanted = np.zeros(int(table.index[table.file == number].max()) + 1, dtype=bool)
        wanted[rows] = True
        for chunk in chunks(file, wanted):
            for index, raw in zip(chunk.indices, chunk.rows, strict=True):
                origin = Origin(file.label, raw.line)
                try:
                    found[number, index] = _question(read_row(raw, file, Recipe("prompt")).row, origin)
                except BadRow as fault:
                    found[number, index] = Question(origin, None, fault=f"{fault} ({origin})")
    for at in chosen:
        yield found[int(table.file[at]), int(table.index[at])]


def _question(row: Conversation | Preference, origin: Origin) -> Question:
    conversation = row.chosen if isinstance(row, Preference) else row
    asked = without_answer(conversation)
    if not asked.messages:
        return Question(origin, None, fault=f"there is nothing to answer ({origin})")
    answer: tuple[Message, ...] = conversation.messages[len(asked.messages) :]
    return Question(origin, asked, "".join(message.content for message in answer) if answer else None)
