"""Ask every question, those that were answered before excepted, and write each answer as it comes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from swift.core.errors import CheckFailed, Interrupted, SwiftError
from swift.core.log import log
from swift.engines.base import Engine
from swift.engines.sync_engine import SyncEngine
from swift.evaluation.answerers import Answer, Answerer
from swift.evaluation.choice_prompt import conversation, letter_of, without_thinking
from swift.evaluation.metrics import open_scores
from swift.evaluation.questions import Choice, Question, Subset, all_questions
from swift.evaluation.run_folder import Record, RunFolder, key_of
from swift.prompts.types import Conversation

S = TypeVar("S")
T = TypeVar("T")
SAY_EVERY = 10.0
"""Seconds between two lines about how far it is."""


@dataclass(frozen=True)
class Task:
    """A question as it is asked."""

    subset: Subset
    question: Question
    conversation: Conversation
    key: str


def tasks_of(subsets: list[Subset], answerer: Answerer) -> list[Task]:
    """Every question with its prompt. Raises SwiftError for one that cannot be asked."""
    tasks = []
    for subset, question in all_questions(subsets):
        asked = conversation(question, subset.shots) if isinstance(question, Choice) else question.conversation
        try:
            key = key_of(subset.suite, subset.name, answerer.key(question, asked))
        except SwiftError as error:
            raise SwiftError(f"{question.origin}: {error.what}", why=error.why, next=error.next) from error
        tasks.append(Task(subset, question, asked, key))
    return tasks


def ask(tasks: Sequence[Task], answerer: Answerer, known: dict[str, Record], run: RunFolder, concurrent: int) -> None:
    """Write a record for each task, in order; the engine is started only where one is not `known`.

    Raises Interrupted on Ctrl-C, and CheckFailed when nothing could be answered.
    """
    todo = [task for task in tasks if task.key not in known]
    if len(todo) < len(tasks):
        log.info("%d of %d questions were answered before", len(tasks) - len(todo), len(tasks))
    errors = 0
    with stopped_in(run), closing(_answers(todo, answerer, concurrent)) as answers:
        for task in tasks:
            answer = Answer(**known[task.key]["answer"]) if task.key in known else next(answers)
            errors += answer.error is not None
            run.write(record_of(task, answer))
    if errors == len(tasks):
        raise CheckFailed("no question could be answered", why=answer.error)


def record_of(task: Task, answer: Answer) -> Record:
    """All about a question in one JSON object."""
    question = task.question
    right: dict[str, Any] = (
        {"question": question.question, "options": dict(question.options), "right": question.answer}
        if isinstance(question, Choice)
        else {"question": task.conversation.messages[-1].content, "right": list(question.references)}
    )
    return {
        "suite": task.subset.suite,
        "subset": task.subset.name,
        "id": question.id,
        "origin": str(question.origin),
        "key": task.key,
        "prompt": [{"role": message.role, "content": message.content} for message in task.conversation.messages],
        **right,
        "answer": asdict(answer),
        "scores": scores_of(question, answer),
        **({"error": answer.error} if answer.error is not None else {}),
    }


def scores_of(question: Question, answer: Answer) -> dict[str, float]:
    """The scores of an answer between 0 and 1; `no_answer` is 1 where a written answer names no option."""
    if not isinstance(question, Choice):
        return open_scores(without_thinking(answer.generated or ""), question.references)
    scores: dict[str, float] = {}
    for name, values in (("letter", answer.letter), ("text", answer.text)):
        if values is not None:
            scores[name] = float(bool(values) and max(values, key=values.__getitem__) == question.answer)
    if answer.generated is not None:
        named = letter_of(answer.generated, question)
        scores |= {"generated": float(named == question.answer), "no_answer": float(named is None)}
    return scores


def _answers(tasks: Sequence[Task], answerer: Answerer, concurrent: int) -> Generator[Answer]:
    """The answer to each task, in order; what went wrong with one stands in it."""

    async def answer(engine: Engine, task: Task) -> Answer:
        try:
            return await answerer.answer(engine, task.question, task.conversation)
        except SwiftError as error:
            log.warning("%s: %s", task.question.origin, error.one_line)
            return Answer(error=error.one_line)

    with ExitStack() as stack:
        yield from answers_in_order(lambda: stack.enter_context(SyncEngine(answerer.start)), answer, tasks, concurrent)


def answers_in_order(
    engine: Callable[[], SyncEngine], work: Callable[[Engine, S], Awaitable[T]], items: Sequence[S], concurrent: int
) -> Generator[T]:
    """What `work` makes of each item, with a line now and then about how far it is; without items no engine starts."""
    if not items:
        return
    started_engine = engine()
    started = said = time.monotonic()
    with closing(started_engine.map(work, items, concurrent)) as answers:
        for number, each in enumerate(answers, 1):
            now = time.monotonic()
            if now - said > SAY_EVERY or number == len(items):
                left = (now - started) / number * (len(items) - number)
                log.info("%d of %d questions answered, %.0f s left", number, len(items), left)
                said = now
            yield each


@contextmanager
def stopped_in(run: RunFolder) -> Iterator[None]:
    """Raises Interrupted on Ctrl-C, with how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped; the answers so far are in {run.path}",
            exit_code=130,
            next="run the same command with --eval_use_cache true to go on",
        ) from None
