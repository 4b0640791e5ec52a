"""Rows to answer, in order and complete: the prompt, the answer the row itself has, or why it cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from swift.core.log import log
from swift.data.columns import refuse_absent
from swift.data.dataset_files import dataset_files
from swift.data.parts import Part, open_part, resampled
from swift.data.preprocess import Outcome, Preprocessor
from swift.data.row_table import Tabulator, say_formats
from swift.data.shard import UNUSABLE, Shard
from swift.data.source import RowSource, SourceRow
from swift.data.workers import chunks, shard_of
from swift.plan.data import DataPlan
from swift.prompts.images import without_answer
from swift.prompts.types import Conversation, Message, Origin, Preference


@dataclass(frozen=True)
class Question:
    """One row. Either `conversation` ends with the turn to answer, or `fault` says what is wrong with the row."""

    origin: Origin
    conversation: Conversation | None
    label: str | None = None
    fault: str | None = None


def prompt_rows(plan: DataPlan, *, as_trained: bool = False) -> list[Question]:
    """The validation rows of the plan: those of its validation data sets, or those split off its training data sets.

    A validation data set that is used whole gives every row, the unusable ones too; samples are drawn from the usable
    ones, and the others are said. With `as_trained` only rows that training could use are chosen from, so that a split
    repeats. Raises SwiftError when a data set cannot be read.
    """
    preprocess = Preprocessor("chat" if as_trained else "prompt")
    tabulator = Tabulator(plan, preprocess, "lengths", None)
    if (plan.val_sample is not None and plan.val_sample >= 0) or not plan.val:
        parts = [open_part(spec, tabulator, validation=True) for spec in plan.val]
        parts += [open_part(spec, tabulator) for spec in plan.train if not plan.val]
        refuse_absent(plan.columns, [shard for part in parts for shard in part.table.shards])
        return [question for part in resampled(parts, plan) for question in _chosen(part, preprocess)]
    questions: list[Question] = []
    shards: list[Shard] = []
    for spec in plan.val:
        if spec.sample < 0:
            questions += _every_row(spec.text, RowSource(dataset_files(spec, plan)), tabulator, shards)
        else:
            part = open_part(spec, tabulator, validation=True)
            shards += part.table.shards
            questions += _chosen(part, preprocess)
    refuse_absent(plan.columns, shards)
    return questions


def _every_row(name: str, source: RowSource, tabulator: Tabulator, read: list[Shard]) -> Iterator[Question]:
    """All rows of a data set; what they are made of is added to `read`."""
    shards: list[Shard] = []
    for number in range(len(source.files)):
        for chunk in chunks(source.rows_of(number)):
            outcomes = tabulator.preprocess(chunk.rows)
            shards.append(shard_of(outcomes, tabulator.keep))
            tabulator.check(chunk, shards[-1])
            yield from map(question_of, chunk.rows, outcomes)
    say_formats(name, shards)
    read += shards


def _chosen(part: Part, preprocess: Preprocessor) -> Iterator[Question]:
    table = part.table
    bad = np.flatnonzero(table.fate == UNUSABLE)
    if len(bad):
        fault = "%s: %d of %d rows cannot be used and none of them is chosen; the first is %s: %s: %s"
        log.warning(fault, table.name, len(bad), len(table), table.origin(bad[0]), *table.fault(bad[0]))
    rows = list(table.fetch(np.unique(part.val)))
    by_place = {row.place: question_of(row, outcome) for row, outcome in zip(rows, preprocess(rows), strict=True)}
    return (by_place[table.place(row)] for row in part.val)


def question_of(row: SourceRow, outcome: Outcome) -> Question:
    """The row as a question, or why it is none."""
    origin = Origin(row.source.label, row.place.line)
    if outcome.converted is None:
        return Question(origin, None, fault=f"{outcome.result} ({origin})")
    meant = outcome.converted.row
    conversation = meant.chosen if isinstance(meant, Preference) else meant
    prompt = without_answer(conversation)
    if not prompt.messages:
        return Question(origin, None, fault=f"there is nothing to answer ({origin})")
    answer: tuple[Message, ...] = conversation.messages[len(prompt.messages) :]
    return Question(origin, prompt, "".join(message.content for message in answer) if answer else None)
