"""Questions that stand in the rows a checkpoint was trained on: their scores measure memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from swift.catalog import Catalog
from swift.core.errors import SwiftError
from swift.core.log import log
from swift.data.dataset_files import dataset_files
from swift.data.preprocess import Preprocessor
from swift.data.source import RowSource, SourceRow
from swift.data.workers import chunks
from swift.evaluation.questions import Choice, Subset, all_questions
from swift.params.args import Args
from swift.params.checkpoint_args import read_saved
from swift.plan.data import DataPlan, plan_data
from swift.prompts.types import Conversation, Preference
from swift.reports.run_files import Run
from swift.training.text_metrics import words

SHINGLE = 8
"""Words by which a question is looked for before it is compared whole."""
SHORT = 4
"""A question of fewer words counts only where it is a whole turn: many texts ask `Who?`."""
SOURCES = ("dataset", "custom_train_dataset_path", "self_cognition_sample")
TRAINED_ON = (*SOURCES, "columns", "model_name", "model_author")
"""Flags of a training that say which rows it reads, and how."""
Words = tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """A question and the first training row that has it."""

    question: str
    row: str


def seen_in_training(checkpoint: Path, args: Args, catalog: Catalog, subsets: list[Subset]) -> list[Seen] | None:
    """The questions that the training data sets of a checkpoint hold; None where the data sets cannot be read.

    They are read as its training read them: from the folder that it was started in, where that is still there.
    """
    saved = read_saved(checkpoint)
    trained = {name: saved[name] for name in TRAINED_ON if saved.get(name)}
    if not any(name in trained for name in SOURCES):
        return None
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in trained.items()}
    if isinstance(values.get("dataset"), str):
        values["dataset"] = (values["dataset"],)
    started_in = Path(str(Run(checkpoint.resolve().parent).environment.get("working folder", ".")))
    try:
        with chdir(started_in if started_in.is_dir() else Path()):
            plan = plan_data(args.with_values(**values, val_dataset=()), catalog)
            return find(subsets, _turns_of(plan))
    except SwiftError as error:
        log.warning("whether questions stand in the training rows was not checked: %s", error.what)
        return None


def find(subsets: list[Subset], turns: Iterable[tuple[str, str]]) -> list[Seen]:
    """The questions that one of the `turns` (place and text) holds, each with the first place."""
    by_start: dict[Words, list[tuple[Words, str]]] = {}
    for _, question in all_questions(subsets):
        if (question.media if isinstance(question, Choice) else question.conversation.media).any:
            continue  # what is asked of many pictures in the same words says nothing
        text = question.question if isinstance(question, Choice) else question.conversation.messages[-1].content
        asked = tuple(words(text))
        if asked:
            by_start.setdefault(asked[:SHINGLE], []).append((asked, str(question.origin)))
    lengths = sorted({len(start) for start in by_start})
    seen: dict[str, str] = {}
    for place, text in turns:
        turn = tuple(words(text))
        for at in range(len(turn)):
            for length in lengths:
                for asked, origin in by_start.get(turn[at : at + length], ()):
                    whole = len(asked) >= SHORT or len(asked) == len(turn)
                    if whole and turn[at : at + len(asked)] == asked:
                        seen.setdefault(origin, place)
    return [Seen(origin, place) for origin, place in seen.items()]


def _turns_of(plan: DataPlan) -> Iterator[tuple[str, str]]:
    """The turns of every row of the training data sets that can be read. Raises SwiftError where none can."""
    preprocess = Preprocessor("chat")
    read = False
    for spec in plan.train:
        source = RowSource(dataset_files(spec, plan))
        for number in range(len(source.files)):
            for chunk in chunks(source.rows_of(number)):
                for turn in _turns(chunk.rows, preprocess):
                    read = True
                    yield turn
    if not read:
        raise SwiftError("none of them can be read")


def _turns(rows: Iterable[SourceRow], preprocess: Preprocessor) -> Iterator[tuple[str, str]]:
    listed = list(rows)
    for row, outcome in zip(listed, preprocess(listed), strict=True):
        if outcome.converted is None:
            continue
        meant = outcome.converted.row
        conversation: Conversation = meant.chosen if isinstance(meant, Preference) else meant
        for message in conversation.messages:
            yield row.where, message.content
