"""Standard benchmarks: lm-evaluation-harness makes the prompts and the scores, our engine or a server the answers."""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]  # an extra
from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]  # as above
from lm_eval.evaluator import evaluate  # pyright: ignore[reportMissingImports]  # as above

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.engines.base import Engine
from swift.engines.sync_engine import SyncEngine
from swift.evaluation.ask import answers_in_order, stopped_in
from swift.evaluation.harness_answerers import HarnessAnswerer, Response
from swift.evaluation.harness_tasks import HarnessTasks, faults_of
from swift.evaluation.metrics import Mean, Z, mean_of
from swift.evaluation.report import Row
from swift.evaluation.run_folder import Record, RunFolder, key_of
from swift.plan.evaluation import EvalPlan

Scores = dict[tuple[str, str], list[float]]
"""The scores of the questions, by task and metric."""
SHOWN = 4000
"""Characters of a prompt's end that the report shows; questions.jsonl has all of it."""


def run_tasks(
    tasks: HarnessTasks, plan: EvalPlan, answerer: HarnessAnswerer, known: Mapping[str, Record], run: RunFolder
) -> tuple[list[Row], dict[str, str]]:
    """Ask every task and write a record for each question -> the scores, and what the report says of the tasks.

    Raises SwiftError for a question that cannot be answered; the answers so far are kept.
    """
    for name, task in tasks.tasks.items():
        kind = task.get_config("output_type")
        answerer.refuse(name, "loglikelihood" if kind == "multiple_choice" else kind)
    bounded = plan.rows.start or plan.rows.stop is not None
    os.environ["DISABLE_MULTIPROC"] = "1"  # a fork of a process with the threads of an engine may hang
    with ExitStack() as stack:
        model = EngineLM(tasks, answerer, known, run, plan.concurrent, stack)
        with stopped_in(run), faults_of(", ".join(dict.fromkeys(tasks.suites.values()))):
            results = evaluate(
                model,
                {"tasks": dict(tasks.tasks), "groups": dict(tasks.groups)},
                samples=dict(tasks.rows) if bounded else None,
                bootstrap_iters=1000,
                apply_chat_template=answerer.chats is not None,
                fewshot_as_multiturn=answerer.chats is not None,
            )
    assert results is not None
    shots = ", ".join(f"{name} {number}" for name, number in results["n-shot"].items() if name in tasks.tasks)
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items() if name in tasks.tasks)
    facts = {"harness": f"lm_eval {version('lm_eval')}", "solved questions before each": shots, "versions": versions}
    return _rows(tasks, results, model.scores), facts


@dataclass(frozen=True)
class _Asked:
    """The requests of one kind for one row of a task; a request that is repeated stands there several times."""

    name: str
    number: int
    kind: str
    requests: list[Instance]
    key: str


class EngineLM(LM):
    """A model for the harness that asks our engine, question by question, and takes over what is known."""

    def __init__(
        self,
        tasks: HarnessTasks,
        answerer: HarnessAnswerer,
        known: Mapping[str, Record],
        run: RunFolder,
        concurrent: int,
        stack: ExitStack,
    ):
        super().__init__()
        self.scores: Scores = {}
        self._tasks = tasks
        self._answerer = answerer
        self._known = known
        self._run = run
        self._concurrent = concurrent
        self._stack = stack

    @cached_property
    def _engine(self) -> SyncEngine:
        """Started when the first answer is wanted that is not known."""
        return self._stack.enter_context(SyncEngine(self._answerer.start))

    @property
    def tokenizer_name(self) -> str:
        """Names a cache of requests that is not used."""
        return ""

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """The turns as a text that leads back to them: they are rendered where token ids are made."""
        assert self._answerer.chats is not None
        return self._answerer.chats.text(chat_history, add_generation_prompt)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """How likely each text is behind its prompt, and whether greedy decoding gives it."""
        return [(value, greedy) for value, greedy in self._responses("loglikelihood", requests)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """How likely each text is."""
        return self._responses("loglikelihood_rolling", requests)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """An answer to each prompt."""
        return self._responses("generate_until", requests)

    def _responses(self, kind: str, requests: Sequence[Instance]) -> list[Response]:
        """A response to each request, in order; every question is written down as soon as it is answered."""
        by_row: dict[tuple[str, int], list[Instance]] = {}
        for request in requests:
            by_row.setdefault((request.task_name, request.doc_id), []).append(request)
        questions = []
        for (name, row), group in by_row.items():
            key = key_of(name, self._answerer.key(kind, [request.args for request in group]))
            questions.append(_Asked(name, self._tasks.rows[name][row], kind, group, key))
        todo = [question for question in questions if question.key not in self._known]
        if len(todo) < len(questions):
            log.info("%d of %d questions were answered before", len(questions) - len(todo), len(questions))

        async def answer(engine: Engine, question: _Asked) -> list[Response]:
            try:
                return await self._answerer.answer(engine, kind, [request.args for request in question.requests])
            except SwiftError as error:
                raise SwiftError(
                    f"{question.name}, row {question.number}: {error.what}",
                    where=error.where,
                    why=error.why,
                    next=error.next,
                ) from error

        responses: dict[tuple[str, int], list[Response]] = {}
        with closing(answers_in_order(lambda: self._engine, answer, todo, self._concurrent)) as answers:
            for question, place in zip(questions, by_row, strict=True):
                known = self._known.get(question.key)
                given = next(answers) if known is None else known["answer"]["responses"]
                self._write(question, given)
                responses[place] = given[::-1]
        return [responses[request.task_name, request.doc_id].pop() for request in requests]

    def _write(self, question: _Asked, responses: Sequence[Response]) -> None:
        task = self._tasks.tasks[question.name]
        scores = _scores(task, question.requests, responses)
        for metric, value in scores.items():
            self.scores.setdefault((question.name, metric), []).append(value)
        first = question.requests[0]
        prompt = first.args[0]
        chat = self._answerer.chats.conversation(prompt) if self._answerer.chats is not None else None
        turns = [{"role": turn.role, "content": turn.content} for turn in chat[0].messages] if chat else prompt
        self._run.write(
            {
                "suite": self._tasks.suites[question.name],
                "subset": question.name,
                "id": str(question.number),
                "origin": f"{question.name}:{question.number}",
                "key": question.key,
                "prompt": turns,
                "question": (turns[-1]["content"] if isinstance(turns, list) else turns)[-SHOWN:],
                "right": str(task.doc_to_target(first.doc)),
                "answer": {
                    "responses": list(responses),
                    **(
                        {"texts": [request.args[1] for request in question.requests]}
                        if question.kind == "loglikelihood"
                        else {}
                    ),
                },
                "scores": scores,
            }
        )


def _scores(task: Any, requests: Sequence[Instance], responses: Sequence[Response]) -> dict[str, float]:
    """The scores of one question that are numbers of its own; others, such as perplexity, are only of all questions."""
    by_request: dict[int, Instance] = {}
    for request, response in zip(requests, responses, strict=True):
        copy = by_request.setdefault(id(request), replace(request, resps=[], filtered_resps={}))
        copy.resps.append(tuple(response) if isinstance(response, list) else response)
    copies = sorted(by_request.values(), key=lambda request: request.idx)
    for ensemble in task._filters:  # no public way applies them to one question
        ensemble.apply(copies)
    scores: dict[str, float] = {}
    for name in copies[0].filtered_resps:
        for metric, value in task.process_results(
            copies[0].doc, [copy.filtered_resps[name] for copy in copies]
        ).items():
            if isinstance(value, numbers.Real | np.bool_):
                scores[_label(metric, name)] = float(value)
    return scores


def _rows(tasks: HarnessTasks, results: Mapping[str, Any], scores: Scores) -> list[Row]:
    """A row for each metric of each task, and of each group that the harness takes together."""
    rows: list[Row] = []
    children = results["group_subtasks"]
    nested = {child for listed in children.values() for child in listed}
    for group, metrics in results.get("groups", {}).items():
        suite = tasks.suites[group]
        roots = [name for name in tasks.groups if tasks.suites[name] == suite and name not in nested]
        leaves = [leaf for leaf in _leaves(group, children) if leaf in tasks.rows]
        rows += _of_metrics(suite, None if roots == [group] else group, metrics, leaves, tasks, scores)
    for name in tasks.tasks:
        rows += _of_metrics(tasks.suites[name], name, results["results"][name], [name], tasks, scores)
    return rows


def _leaves(group: str, children: Mapping[str, Sequence[str]]) -> list[str]:
    """The tasks below a group; a task is its own."""
    return [leaf for child in children[group] for leaf in _leaves(child, children)] if group in children else [group]


def _of_metrics(
    suite: str,
    subset: str | None,
    metrics: Mapping[str, Any],
    names: Sequence[str],
    tasks: HarnessTasks,
    scores: Scores,
) -> list[Row]:
    """The first metric is the score. A mean of the questions' scores has our interval, others the harness's error."""
    rows: list[Row] = []
    for key, value in metrics.items():
        metric, _, ensemble = key.partition(",")
        if not ensemble or metric.endswith("_stderr") or not isinstance(value, numbers.Real):
            continue
        label = _label(metric, ensemble)
        values = [each for name in names for each in scores.get((name, label), ())]
        n = sum(len(tasks.rows[name]) for name in names if not values or (name, label) in scores)
        error = metrics.get(f"{metric}_stderr,{ensemble}")
        half = Z * float(error) if isinstance(error, numbers.Real) else None
        mean = Mean(n, float(value), *(None, None) if half is None else (float(value) - half, float(value) + half))
        if len(values) == n and abs(sum(values) / n - mean.mean) < 1e-9:
            mean = mean_of(values)
        share = bool(values) and all(0 <= each <= 1 for each in [*values, mean.mean])
        rows.append(Row(suite, subset, label, not rows, mean, share))
    return rows


def _label(metric: str, ensemble: str) -> str:
    return metric if ensemble == "none" else f"{metric} ({ensemble})"
