"""The checkpoint as others meet it: loaded by the server's engine, asked through the server's own requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from swift.checking.subject import Subject, chosen
from swift.data.prompt_rows import Question, prompt_rows
from swift.engines.base import Engine
from swift.engines.factory import Prepared, prepare, start
from swift.engines.sync_engine import SyncEngine
from swift.params.args import Args
from swift.params.parse import parse
from swift.plan.infer import DEFAULT_LORA, InferPlan, plan_infer
from swift.plan.serve import plan_serve
from swift.prompts.parity import first_difference
from swift.prompts.types import IGNORED, Conversation, Media, Message

AT_ONCE = 4
"""Rows that are with the engine at the same time."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A checkpoint in the engine that `swift deploy` starts for it."""

    args: Args
    plan: InferPlan
    prepared: Prepared
    engine: SyncEngine

    def log_likelihoods(self, rows: Sequence[dict[str, Any]]) -> list[float]:
        """The mean log-likelihood of the tokens that each row trains, row by row."""
        work = partial(_log_likelihood, adapter=self.plan.engine.default_adapter)
        return list(self.engine.map(work, rows, AT_ONCE))

    def prompts(self, conversations: Sequence[Conversation]) -> list[tuple[int, ...] | str]:
        """The token ids that the server makes of a request with each conversation, or why it refuses it."""
        from swift.serving.errors import ApiError
        from swift.serving.schema import ChatRequest
        from swift.serving.service import Loaded, Service

        plan = plan_serve(self.args, self.plan, is_chat=not self.prepared.one_turn)
        service = Service(plan)
        defaults = plan.defaults(self.prepared.sampling)
        service.open(Loaded(self.engine.engine, self.prepared.encoder, defaults))
        model = DEFAULT_LORA if DEFAULT_LORA in service.model_names else plan.model_name

        async def ids(_engine: Engine, conversation: Conversation) -> tuple[int, ...] | str:
            try:
                ready = await service.prepare(ChatRequest.model_validate(_request(conversation, model)))
            except ApiError as error:
                return f"the server refuses it: {error}"
            return ready.prompts[0]

        return list(self.engine.map(ids, conversations, AT_ONCE))


@contextmanager
def served(subject: Subject, folder: Path) -> Iterator[Served]:
    """The checkpoint in `folder`, with the arguments that it carries and nothing but its name on the command line."""
    words = ["deploy", "--ckpt_dir", str(folder), "--infer_backend", "pt", "--dtype", subject.plan.model.dtype]
    args = parse(words)
    plan = plan_infer(args, subject.catalog, subject.machine, answers_rows=False)
    prepared = prepare(plan, subject.catalog)
    with SyncEngine(partial(start, plan, prepared)) as engine:
        yield Served(args=args, plan=plan, prepared=prepared, engine=engine)


def questions(subject: Subject) -> list[tuple[Question, dict[str, Any]]]:
    """All sampled rows as questions, each with what training makes of it; those that say no more than text."""
    data = subject.plan.data
    rows: Any = subject.prepared.built.train
    by_origin = {rows.origin(number): chosen(rows[number]) for number in range(len(rows))}
    as_questions = prompt_rows(replace(data, test_ratio=1.0), as_trained=True)
    return [
        (question, by_origin[str(question.origin)])
        for question in as_questions
        if question.conversation is not None
        and not question.conversation.media.images
        and str(question.origin) in by_origin
    ]


def prompt_fault(subject: Subject, prompt: tuple[int, ...] | str, row: dict[str, Any]) -> str | None:
    """How the server's prompt differs from the row up to its last answer; None where it does not."""
    if isinstance(prompt, str):
        return prompt
    ids, size, limit = row["input_ids"], len(prompt), subject.plan.prompt.max_length
    if limit is not None and len(ids) >= limit:
        return None  # it may have been cut off
    if list(prompt) != ids[:size]:
        return first_difference(subject.prepared.encoder.tokens, prompt, ids, "training")
    answer = [place for place in range(size, len(ids)) if row["labels"][place] != IGNORED]
    if not answer:
        return "the server's prompt goes on behind where the answer begins"
    return None if answer[0] == size else f"training has {answer[0] - size} more tokens before the answer"


async def _log_likelihood(engine: Engine, row: dict[str, Any], *, adapter: str | None) -> float:
    ids, labels = row["input_ids"], row["labels"]
    first = next(place for place, label in enumerate(labels) if label != IGNORED)
    shown = row.get("media", Media())
    (told,) = await engine.log_probs(tuple(ids[:first]), [tuple(ids[first:])], adapter, media=shown)
    trained = [one.logprob for one, label in zip(told, labels[first:], strict=True) if label != IGNORED]
    return sum(trained) / len(trained)


def _request(conversation: Conversation, model: str) -> dict[str, Any]:
    """The conversation as a client of the OpenAI API sends it."""
    tools = {"tools": list(conversation.tools)} if conversation.tools else {}
    return {"model": model, "messages": list(map(_message, conversation.messages)), **tools}


def _message(message: Message) -> dict[str, Any]:
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.tool_calls
    ]
    more = {
        "tool_calls": calls,
        "reasoning_content": message.reasoning,
        "tool_call_id": message.tool_call_id,
        "name": message.name,
    }
    return {"role": message.role, "content": message.content, **{key: value for key, value in more.items() if value}}
