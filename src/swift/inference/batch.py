"""Dataset mode: every row answered, in order, written as it is done; what cannot be answered says why."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from swift.core.errors import CheckFailed, Interrupted, SwiftError
from swift.core.log import log
from swift.data.prompt_rows import Question
from swift.engines.base import Delta, Request
from swift.engines.factory import Prepared
from swift.engines.sync_engine import Reply, SyncEngine
from swift.inference.result_file import Results, fields, finish, open_results, run_name
from swift.plan.infer import BAR_FROM, InferPlan
from swift.prompts.types import Conversation
from swift.training.text_metrics import scores

CONCURRENT = 64
"""Rows under way at once; the engine batches as many of them as it has room for."""
SAY_EVERY = 10.0
"""Seconds between two progress lines where there is no terminal."""


def answer_rows(plan: InferPlan, prepared: Prepared, engine: SyncEngine, rows: Sequence[Question]) -> Path | None:
    """Answer `rows` and write the result file -> its path.

    Raises CheckFailed when the file does not have them all or no row could be answered, and Interrupted on Ctrl-C.
    """
    assert plan.rows is not None
    verbose = len(rows) < BAR_FROM if plan.rows.verbose is None else plan.rows.verbose
    run = run_name(plan.model, plan.prompt, plan.engine, prepared.sampling, plan.seed, [_identity(row) for row in rows])
    default_system = prepared.encoder.template.default_system
    with open_results(plan.results, run, datetime.now()) as results:
        show: Shown = Printed(prepared, plan.stream) if verbose else Bar(results.done, len(rows))
        todo = rows[results.done :]
        try:
            for row, reply in _replies(plan, prepared, engine, todo, results.done, show):
                answer = {"response": reply.text} if reply.error is None else {"response": None, "error": reply.error}
                given = fields(row.conversation or Conversation(()), default_system)
                columns = {
                    "system": given.pop("system"),
                    "query": given.pop("query"),
                    **answer,
                    "label": row.label,
                    **given,
                }
                results.write(columns)
                show.end(row, reply)
        except KeyboardInterrupt:
            raise Interrupted(
                "stopped; the rows answered so far are kept", exit_code=130, next="run the same command again to go on"
            ) from None
        show.close()
        written = _check(results, rows)
    _report(written)
    if results.path is not None:
        log.info("answers: %s", results.path)
    return results.path


def _replies(
    plan: InferPlan, prepared: Prepared, engine: SyncEngine, rows: Sequence[Question], first: int, show: Shown
) -> Iterator[tuple[Question, Reply]]:
    """Each row with its reply. Rows without a usable prompt never reach the engine."""
    requests = [_request(plan, prepared, engine, row, first + number) for number, row in enumerate(rows)]
    answered = engine.streams((each for each in requests if isinstance(each, Request)), CONCURRENT)
    for row, request in zip(rows, requests, strict=True):
        if isinstance(request, str):
            yield row, Reply(None, finish_reason="error", error=request)
            continue
        _, deltas = next(answered)
        reply = Reply(request)
        show.begin(request)
        for delta in deltas:
            reply.add(delta)
            show.piece(delta)
        if reply.error is not None:
            reply.error += f" ({row.origin})"
        yield row, reply


def _request(plan: InferPlan, prepared: Prepared, engine: SyncEngine, row: Question, number: int) -> Request | str:
    """The row as a request, or why it cannot be one."""
    if row.conversation is None:
        return row.fault or "the row cannot be used"
    try:
        prompt = prepared.encoder.encode(row.conversation, inference=True)[-1]
    except SwiftError as error:
        return f"{error.one_line} ({row.origin})"
    ids = tuple(prompt.input_ids)
    room = engine.engine.max_model_len - len(ids)
    if room < 1:
        return f"the prompt has {len(ids)} tokens, the context holds {engine.engine.max_model_len} ({row.origin})"
    return Request(
        id=f"row-{number}",
        prompt_ids=ids,
        sampling=prepared.sampling_of(room, tools=bool(row.conversation.tools), seed=plan.seed + number),
        adapter=plan.engine.default_adapter,
        media=prompt.media,
    )


def _identity(row: Question) -> object:
    return row.conversation or row.fault


def _check(results: Results, rows: Sequence[Question]) -> list[dict[str, Any]]:
    """The rows with their answers. Raises CheckFailed when there are more or fewer of them than questions."""
    written = results.rows()
    if len(written) != len(rows):
        raise CheckFailed(
            f"{len(rows)} rows were to be answered and {results.path or 'the run'} has {len(written)}",
            next="run the same command again into another --result_dir",
        )
    finish(results)
    return written


def _report(written: Sequence[dict[str, Any]]) -> None:
    """Scores of the rows that have a label, and what went wrong. Raises CheckFailed when nothing could be answered."""
    failed = [row for row in written if "error" in row]
    if failed:
        log.warning(
            "%d of %d rows have an error instead of an answer: %s", len(failed), len(written), failed[0]["error"]
        )
    labelled = [row for row in written if row["label"] is not None and row["response"] is not None]
    if labelled:
        pairs = [(row["response"], row["label"]) for row in labelled]
        exact = 100 * sum(answer.strip() == label.strip() for answer, label in pairs) / len(pairs)
        percent = {**scores(pairs), "exact-match": exact}
        shown = ", ".join(f"{name} {value:.2f}" for name, value in percent.items())
        log.info("against the labels of %d rows (percent): %s", len(labelled), shown)
    if written and len(failed) == len(written):
        raise CheckFailed("no row could be answered", why=failed[0]["error"])


class Shown(Protocol):
    """What a person sees while rows are answered."""

    def begin(self, request: Request) -> None:
        """A row's answer begins."""
        ...

    def piece(self, delta: Delta) -> None:
        """More of it."""
        ...

    def end(self, row: Question, reply: Reply) -> None:
        """It is whole, or there is none."""
        ...

    def close(self) -> None:
        """All rows are done."""
        ...


class Printed:
    """Prompt, answer and label of every row, on standard output; with `stream` the answer as it comes."""

    def __init__(self, prepared: Prepared, stream: bool):
        self._prepared = prepared
        self._stream = stream

    def begin(self, request: Request) -> None:
        """Show the prompt as the model sees it, with its images in words."""
        images, decode, ids = self._prepared.images, self._prepared.tokenizer.decode, request.prompt_ids
        stretches = [("", ids)] if images is None else images.described(ids, request.media)
        prompt = "".join(words or decode(stretch) for words, stretch in stretches)
        print(f"[PROMPT]{prompt}[OUTPUT]", end="", flush=True)

    def piece(self, delta: Delta) -> None:
        """Show more of the answer."""
        if self._stream:
            print(delta.text, end="", flush=True)

    def end(self, row: Question, reply: Reply) -> None:
        """Show the label and a line."""
        text = "" if self._stream else reply.text
        print(text if reply.error is None else f"{text}[ERROR]{reply.error}")
        if row.label is not None:
            print(f"\n[LABELS]{row.label}")
        print("-" * 50, flush=True)

    def close(self) -> None:
        """Nothing more."""


class Bar:
    """How many rows are done: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, done: int, rows: int):
        self._done, self._rows, self._first = done, rows, done
        self._start = self._given = time.monotonic()
        self._tty = sys.stderr.isatty()

    def begin(self, request: Request) -> None:
        """Nothing to see."""

    def piece(self, delta: Delta) -> None:
        """Nothing to see."""

    def end(self, row: Question, reply: Reply) -> None:
        """One more."""
        self._done += 1
        now = time.monotonic()
        if self._tty and (now - self._given > 0.1 or self._done == self._rows):
            filled = 30 * self._done // self._rows
            rate = (self._done - self._first) / max(now - self._start, 1e-9)
            left = (self._rows - self._done) / max(rate, 1e-9)
            bar = f"{'█' * filled}{'░' * (30 - filled)}"
            print(f"\r{bar} {self._done}/{self._rows} rows, {rate:.1f}/s, {left:.0f} s left ", end="", file=sys.stderr)
            self._given = now
        elif not self._tty and (now - self._given > SAY_EVERY or self._done == self._rows):
            log.info("%d of %d rows", self._done, self._rows)
            self._given = now

    def close(self) -> None:
        """End the bar's line."""
        if self._tty:
            print(file=sys.stderr)
