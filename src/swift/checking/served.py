"""The checkpoint as others meet it: loaded by the server's engine, asked through the server's own requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from swift.checking.formulas import Weighed, number
from swift.checking.subject import Subject, chosen
from swift.data.prompt_rows import Question, prompt_rows
from swift.engines.base import Engine, Request, SamplingParams, TokenLogprob
from swift.engines.factory import Prepared, prepare, start
from swift.engines.sync_engine import SyncEngine
from swift.params.args import Args
from swift.params.parse import parse
from swift.plan.infer import DEFAULT_LORA, InferPlan, plan_infer
from swift.plan.methods import METHODS
from swift.plan.model import ModelPlan
from swift.plan.serve import plan_serve
from swift.prompts.encode import Encoder
from swift.prompts.parity import first_difference
from swift.prompts.types import IGNORED, Conversation, Encoded, Media, Message

AT_ONCE = 4
"""Rows that are with the engine at the same time."""
WRITTEN = 6
"""Tokens of an answer that the engine writes itself."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A checkpoint in the engine that `swift deploy` starts for it."""

    args: Args
    plan: InferPlan
    prepared: Prepared
    engine: SyncEngine

    @property
    def adapter(self) -> str | None:
        """The name of the adapter that answers; None where the model does."""
        return self.plan.engine.default_adapter

    def weighed(self, rows: Sequence[dict[str, Any]], *, adapted: bool = True) -> list[Weighed]:
        """The log-probabilities of what each row trains, by the checkpoint, or by its base alone."""
        return list(self.engine.map(partial(_weighed, adapter=self.adapter if adapted else None), rows, AT_ONCE))

    def log_likelihoods(self, rows: Sequence[dict[str, Any]]) -> list[float]:
        """The mean log-likelihood of the tokens that each row trains, row by row."""
        return [float(one.log_prob) / one.weight for one in self.weighed(rows)]

    def scored(self, rows: Sequence[dict[str, Any]]) -> list[Weighed]:
        """The same of a reward model: a score for each row."""
        return [Weighed(number(score), 1.0, 1) for score in self.scores(rows)]

    def scores(self, rows: Sequence[dict[str, Any]]) -> list[float]:
        """What the value head gives for each row."""
        reader = self.engine.engine.reader
        assert reader is not None

        async def score(_engine: Engine, row: dict[str, Any]) -> float:
            (value,) = await reader.score([Encoded(input_ids=row["input_ids"], labels=row["labels"])], self.adapter)
            return value

        return list(self.engine.map(score, rows, AT_ONCE))

    def written(self, rows: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], float]]:
        """Answers that the engine writes to the prompts of rows of text, several at a time, token behind token.

        -> each prompt with its answer, as a row that trains the answer, and its mean log-likelihood.
        """
        return list(self.engine.map(partial(_written, adapter=self.adapter), rows, AT_ONCE))

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


def served(subject: Subject, folder: Path) -> AbstractContextManager[Served]:
    """The checkpoint in `folder`, with the arguments that it carries and nothing but its name on the command line."""
    return _deployed(subject, ["--ckpt_dir", str(folder)], scores=METHODS[subject.plan.method].scores)


def served_model(subject: Subject, model: ModelPlan) -> AbstractContextManager[Served]:
    """A model as it is, without what was trained."""
    named = [] if model.entry is None else ["--model_type", model.model_type]
    return _deployed(subject, ["--model_id_or_path", model.source, *named])


@contextmanager
def _deployed(subject: Subject, named: Sequence[str], *, scores: bool = False) -> Iterator[Served]:
    args = parse(["deploy", *named, "--infer_backend", "pt", "--dtype", subject.plan.model.dtype])
    plan = plan_infer(args, subject.catalog, subject.machine, answers_rows=False)
    prepared = prepare(plan, subject.catalog, scores=scores)
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
    if answer[0] != size:
        return f"training has {answer[0] - size} more tokens before the answer"
    return label_fault(subject.prepared.encoder, row, answer)


def label_fault(encoder: Encoder, row: dict[str, Any], answer: Sequence[int]) -> str | None:
    """What training teaches wrongly: another token than the one that stands there, or no end of the last answer.

    `answer` are the places of what is trained of it.
    """
    ids, labels = row["input_ids"], row["labels"]
    ends = (*encoder.turn_end, *encoder.stop_token_ids)
    for place, (token, label) in enumerate(zip(ids, labels, strict=True)):
        if label not in (IGNORED, token, *ends):
            told, there = encoder.tokens.decode([label]), encoder.tokens.decode([token])
            return f"training teaches {told!r} at token {place + 1}, where {there!r} stands"
    taught = [labels[place] for place in answer]
    text = encoder.tokens.decode(taught)
    stops = (*encoder.stop_strings, *encoder.tool_stop_strings)
    if set(encoder.stop_token_ids).isdisjoint(taught) and not any(stop in text for stop in stops):
        return f"no end of the answer is trained, at which the server stops: it ends in {text[-20:]!r}"
    return None


async def _weighed(engine: Engine, row: dict[str, Any], *, adapter: str | None) -> Weighed:
    ids, labels, shown = row["input_ids"], row["labels"], row.get("media", Media())
    trained = [place for place, label in enumerate(labels) if place and label != IGNORED]
    (told,) = await engine.log_probs(tuple(ids[: trained[0]]), [tuple(ids[trained[0] :])], adapter, media=shown)
    total = weight = 0.0
    for place in trained:
        mine = told[place - trained[0]]
        if labels[place] != ids[place]:  # the end of an earlier answer, where the template goes on otherwise
            ((mine,),) = await engine.log_probs(tuple(ids[:place]), [(labels[place],)], adapter, media=shown)
        counts = row["loss_scale"][place] if row.get("loss_scale") else 1.0
        total, weight = total + counts * mine.logprob, weight + counts
    return Weighed(number(total), weight, len(trained))


async def _written(engine: Engine, row: dict[str, Any], *, adapter: str | None) -> tuple[dict[str, Any], float]:
    prompt = row["input_ids"][: next(place for place, label in enumerate(row["labels"]) if label != IGNORED)]
    sampling = SamplingParams(max_tokens=WRITTEN, ignore_eos=True, logprobs=0)
    request = Request(id=f"check-{row['row']}", prompt_ids=tuple(prompt), sampling=sampling, adapter=adapter)
    told: list[TokenLogprob] = []
    async for delta in engine.stream(request):
        if delta.error is not None:
            raise ValueError(delta.error)
        told += delta.logprobs
    answer = [one.token_id for one in told]
    whole = {"input_ids": [*prompt, *answer], "labels": [*[IGNORED] * len(prompt), *answer], "row": row["row"]}
    return whole, sum(one.logprob for one in told) / len(told)


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
