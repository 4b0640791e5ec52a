"""Own questions, read from the folders of a suite: multiple choice and open ones, each with where it stands.

Multiple choice is what the 2.5 release calls ceval: `SUBSET_val.csv` with the columns question, A, B, C … and answer,
and solved questions for the prompt in `SUBSET_dev.csv`. Open questions are `SUBSET.jsonl`, in any format of rows that
training reads. Every kind of file that holds rows does for either, and a question of either kind may show `images`,
`videos` or `audios`, as rows of training do. A question that cannot be used ends the evaluation: a score over the
others would be that of other questions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from swift.core.errors import SwiftError, raise_together
from swift.core.log import log
from swift.data.fields import media
from swift.data.preprocess import Preprocessor
from swift.data.prompt_rows import question_of
from swift.data.raw_row import RawRow, dumped
from swift.data.read import read_rows
from swift.data.source import Place, SourceFile, SourceRow
from swift.plan.data import FILE_SUFFIXES
from swift.plan.evaluation import Suite
from swift.prompts.bad_row import BadRow
from swift.prompts.messages import MEDIA_TAGS
from swift.prompts.types import Conversation, Media, Origin

LETTERS = "ABCDEFGHIJ"
REFERENCES = ("answers", "references", "response", "answer", "output", "target")
"""Columns that may hold several right answers as a list."""


@dataclass(frozen=True)
class Choice:
    """A question with options; `answer` is the letter of the right one."""

    origin: Origin
    id: str
    question: str
    options: Mapping[str, str]
    answer: str
    system: str | None = None
    media: Media = field(default_factory=Media)


@dataclass(frozen=True)
class Open:
    """A question that is answered freely; each of the `references` is right."""

    origin: Origin
    id: str
    conversation: Conversation
    references: tuple[str, ...]


Question = Choice | Open


@dataclass(frozen=True)
class Subset:
    """The questions of one file, and solved ones to show before them."""

    suite: str
    name: str
    questions: tuple[Question, ...]
    shots: tuple[Choice, ...] = ()


def read_suites(suites: tuple[Suite, ...], rows: slice, few_shot: int) -> list[Subset]:
    """Every subset of every suite, `rows` of each. Raises SwiftError for all that cannot be used, by file and line."""
    subsets: list[Subset] = []
    errors: list[SwiftError] = []
    for suite in suites:
        for name, path in _files(suite).items():
            try:
                subsets.append(_subset(suite, name, path, rows, few_shot))
            except SwiftError as error:
                errors += error.errors if isinstance(error, _Rows) else [error]
    raise_together(errors)
    for subset in subsets:
        if not subset.questions:
            log.info("%s %s has no question in the slice of --eval_limit", subset.suite, subset.name)
    if not any(subset.questions for subset in subsets):
        raise SwiftError("no question is chosen", where="--eval_limit")
    return [subset for subset in subsets if subset.questions]


def _files(suite: Suite) -> dict[str, Path]:
    """The file of each subset. Raises SwiftError for one that is missing."""
    ending = "_val" if suite.pattern == "choice" else ""
    there = {
        path.name.removesuffix(suffix).removesuffix(ending): path
        for suffix in FILE_SUFFIXES
        for path in sorted(suite.folder.glob(f"*{ending}{suffix}"))
        if suite.pattern == "open" or not path.name.endswith(f"_dev{suffix}")
    }
    missing = [name for name in suite.subsets if name not in there]
    wanted = f"SUBSET{ending}.csv" if suite.pattern == "choice" else "SUBSET.jsonl"
    if missing or not there:
        what = f"no file of the subset {missing[0]}" if missing else "no questions"
        raise SwiftError(
            f"{suite.folder} has {what}",
            where=f"suite {suite.name}",
            next=f"it has {', '.join(sorted(there))}" if there else f"put {wanted} there",
        )
    return {name: there[name] for name in suite.subsets or there}


def _subset(suite: Suite, name: str, path: Path, rows: slice, few_shot: int) -> Subset:
    if suite.pattern == "open":
        questions: tuple[Question, ...] = tuple(_read(path, _open))
        shots: tuple[Choice, ...] = ()
    else:
        questions = tuple(_read(path, _choice))
        dev = path.with_name(path.name.replace("_val.", "_dev."))
        shots = tuple(_read(dev, _choice))[:few_shot] if few_shot and dev.is_file() else ()
    if not questions:
        raise SwiftError(f"{path} has no questions", where=f"suite {suite.name}")
    return Subset(suite.name, name, questions[rows], shots)


class _Rows(SwiftError):
    """What is wrong with the rows of one file."""

    def __init__(self, errors: list[SwiftError]):
        super().__init__(errors[0].what)
        self.errors = errors


def _read(path: Path, make: Any) -> list[Any]:
    """The questions that `make` reads from the rows of a file. Raises _Rows with the fault of each bad row."""
    questions, errors = [], []
    for row in read_rows(path):
        origin = Origin(str(path), row.line)
        try:
            if row.fault is not None:
                raise SwiftError(f"{origin}: {row.fault}")
            questions.append(make(row, origin, path))
        except SwiftError as error:
            errors.append(error)
    if errors:
        raise _Rows(errors)
    return questions


def _choice(row: RawRow, origin: Origin, path: Path) -> Choice:
    fields = _fields(row, origin)
    question = _text(fields, "question") or _text(fields, "query")
    if not question:
        raise SwiftError(
            f"{origin}: the column question is missing or empty",
            next="the first line of a table names its columns: question, A, B, C, D, answer",
        )
    fields = {name.upper() if len(name) == 1 else name: value for name, value in fields.items()}
    options = {letter: _text(fields, letter) for letter in LETTERS if letter in fields}
    options = {letter: text for letter, text in options.items() if text}
    answer = (_text(fields, "answer") or _text(fields, "response")).strip("().: ").upper()
    if len(options) < 2:
        raise SwiftError(f"{origin}: there are fewer than two options in the columns A, B, C …")
    if answer not in options:
        listed = ", ".join(options)
        if len(answer) > 1 and set(re.sub(r"[\W_]", "", answer)) <= options.keys():
            raise SwiftError(f"{origin}: the answers {answer} are several, a question here has one of {listed}")
        raise SwiftError(f"{origin}: the answer {answer or 'is missing'} is none of {listed}")
    try:
        shown = media(fields, {}, path.parent)
    except BadRow as error:
        raise SwiftError(f"{origin}: {error}") from error
    for kind, tag in MEDIA_TAGS.items():
        tags, number = question.count(tag), len(shown.of(kind))
        if shown.any and tags > number:
            raise SwiftError(f"{origin}: the text has {tags} {tag} and the row {number} {kind}")
    system = fields.get("system") or None
    return Choice(origin, _text(fields, "id") or str(row.line), question, options, answer, system, shown)


def _open(row: RawRow, origin: Origin, path: Path) -> Open:
    fields = _fields(row, origin)
    several = next((name for name in REFERENCES if isinstance(fields.get(name), list)), None)
    references: tuple[str, ...] = ()
    payload = row.payload
    if several is not None:
        references = tuple(str(each) for each in fields[several])
        rest = {name: value for name, value in fields.items() if name not in REFERENCES}
        payload = dumped({**rest, "response": references[0] if references else ""})
    source = SourceRow(payload, None, SourceFile(path, str(path)), Place(0, 0, row.offset, row.line))
    (outcome,) = Preprocessor("prompt")([source])
    question = question_of(source, outcome)
    if question.conversation is None:
        raise SwiftError(f"{origin}: {(question.fault or 'it cannot be used').removesuffix(f' ({origin})')}")
    references = references or ((question.label,) if question.label else ())
    if not any(text.strip() for text in references):
        raise SwiftError(f"{origin}: there is no answer to compare with")
    return Open(origin, str(fields.get("id") or row.line), replace(question.conversation, origin=origin), references)


def _fields(row: RawRow, origin: Origin) -> dict[str, Any]:
    try:
        fields = json.loads(row.payload)
    except UnicodeDecodeError as error:
        raise SwiftError(
            f"{origin}: it is no UTF-8", why=str(error), next="save the file as UTF-8: iconv -f gb18030 -t utf-8 FILE"
        ) from error
    except ValueError as error:
        raise SwiftError(f"{origin}: it is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise SwiftError(f"{origin}: it is no JSON object")
    return {name.strip() if isinstance(name, str) else name: value for name, value in fields.items()}


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return "" if value is None else str(value).strip()


def all_questions(subsets: list[Subset]) -> Iterator[tuple[Subset, Question]]:
    """Each question with its subset, in order."""
    return ((subset, question) for subset in subsets for question in subset.questions)
