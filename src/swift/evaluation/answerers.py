"""Who answers: a model of this machine, or a server.

Both get the same conversation. A model of this machine answers through the template and the engine of `swift infer`.
A chat server renders the prompt itself; the likeliest letter is then the likeliest among the 20 first tokens it tells,
or the one it writes when it may write nothing else. A server of plain completions tells how likely a text is by echo.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from swift.core.errors import SwiftError
from swift.core.log import log, once
from swift.data.local_media import REMOTE
from swift.engines.base import Constraint, Engine, Request, SamplingParams
from swift.engines.factory import Prepared, start
from swift.engines.remote import NotUp, Refused, RemoteEngine, RemoteSettings
from swift.evaluation.questions import Choice, Question
from swift.models.fingerprint import identity
from swift.params.groups.evaluate import ChoiceScore
from swift.plan.evaluation import EvalPlan, RemotePlan
from swift.plan.infer import InferPlan, plan_sampling
from swift.prompts.messages import MEDIA_TAGS
from swift.prompts.types import Conversation, Encoded, Media, Message

TOP = 20
"""Most first tokens that a chat server tells of; OpenAI's own limit."""
LETTER_TOKENS = 32
"""Tokens of an answer that is to be a letter, where `--max_new_tokens` is not given."""
WRITTEN: tuple[ChoiceScore, ...] = ("generated",)


@dataclass(frozen=True)
class Answer:
    """What came back for one question; log-probabilities by letter, those of the texts divided by their bytes."""

    generated: str | None = None
    finish_reason: str | None = None
    letter: Mapping[str, float] | None = None
    text: Mapping[str, float] | None = None
    error: str | None = None


class Answerer(Protocol):
    """Answers questions by an engine of its own."""

    scores: tuple[ChoiceScore, ...]
    """The ways to score a choice that it can do."""

    def key(self, question: Question, conversation: Conversation) -> list[Any]:
        """What decides the answer. Raises SwiftError for a conversation that cannot be asked."""
        ...

    async def start(self) -> Engine:
        """The engine, with the weights loaded or the server reached."""
        ...

    async def answer(self, engine: Engine, question: Question, conversation: Conversation) -> Answer:
        """The answer to one question. Raises SwiftError where there is none."""
        ...


class LocalAnswerer:
    """The model of an InferPlan."""

    def __init__(self, eval_plan: EvalPlan, plan: InferPlan, prepared: Prepared):
        self.scores = eval_plan.choice_scores
        self._plan = plan
        self._prepared = prepared
        self._short = eval_plan.short_letters
        self._model = model_facts(plan, prepared)

    def key(self, question: Question, conversation: Conversation) -> list[Any]:
        """Weights, precision, token ids of the prompt, what is shown in it, sampling and scores.

        Raises SwiftError for media that the model does not take.
        """
        images = self._prepared.images
        if conversation.media.any and images is None:
            raise SwiftError("it shows images, videos or sounds, and this model takes text only")
        ids = self._prompt(conversation).input_ids
        key = [self._model, ids, repr(self._sampling(question, 2**31)), self._scores(question)]
        return key if images is None else [*key, *shown(conversation.media, images.facts)]

    async def start(self) -> Engine:
        """Load the weights."""
        return await start(self._plan, self._prepared)

    async def answer(self, engine: Engine, question: Question, conversation: Conversation) -> Answer:
        """Score the options first, whose prompt the written answer then finds computed."""
        prompt = self._prompt(conversation)
        ids = tuple(prompt.input_ids)
        room = engine.max_model_len - len(ids)
        if room < 1:
            raise SwiftError(f"the prompt has {len(ids)} tokens, the context holds {engine.max_model_len}")
        scores, letter, text = self._scores(question), None, None
        if isinstance(question, Choice):
            letters = {letter: letter for letter in question.options}
            media = prompt.media
            letter = await self._log_probs(engine, ids, letters, media) if "letter" in scores else None
            text = await self._log_probs(engine, ids, question.options, media) if "text" in scores else None
            text = text and per_byte(text, question)
        if "generated" not in scores:
            return Answer(letter=letter, text=text)
        request = Request(
            id=question.id,
            prompt_ids=ids,
            sampling=self._sampling(question, room),
            adapter=self._plan.engine.default_adapter,
            media=prompt.media,
        )
        written, reason = "", None
        async for delta in engine.stream(request):
            if delta.error:
                raise SwiftError(delta.error)
            written, reason = written + delta.text, delta.finish_reason
        return Answer(written, reason, letter, text)

    def _prompt(self, conversation: Conversation) -> Encoded:
        return self._prepared.encoder.encode(conversation, inference=True)[-1]

    def _scores(self, question: Question) -> tuple[ChoiceScore, ...]:
        return self.scores if isinstance(question, Choice) else WRITTEN

    def _sampling(self, question: Question, room: int) -> SamplingParams:
        most = min(room, LETTER_TOKENS) if isinstance(question, Choice) and self._short else room
        return self._prepared.sampling_of(most, seed=self._plan.seed)

    async def _log_probs(
        self, engine: Engine, prompt: tuple[int, ...], options: Mapping[str, str], media: Media
    ) -> dict[str, float]:
        """The log-probability of each option's tokens behind the prompt."""
        space = " " if self._prepared.one_turn else ""  # a base model goes on behind "Answer:"
        ids = self._prepared.encoder.tokens.of_texts([space + text for text in options.values()])
        adapter = self._plan.engine.default_adapter
        per_token = await engine.log_probs(prompt, [tuple(each) for each in ids], adapter, media=media)
        return {
            letter: sum(token.logprob for token in values) for letter, values in zip(options, per_token, strict=True)
        }


class RemoteAnswerer:
    """A server that speaks the OpenAI API."""

    def __init__(self, plan: EvalPlan, remote: RemotePlan):
        self._remote = remote
        self._short = plan.short_letters
        self._chat = remote.is_chat is not False
        self._asks_choices = plan.asks_choices
        possible: tuple[ChoiceScore, ...] = ("letter", "generated") if self._chat else ("letter", "text", "generated")
        self.scores: tuple[ChoiceScore, ...] = tuple(score for score in plan.choice_scores if score in possible)
        if not self.scores:
            raise SwiftError(
                "a chat server does not tell how likely a text is",
                where=f"--choice_scores {' '.join(plan.choice_scores)}",
                next=f"add {' or '.join(possible)}",
            )
        if plan.asks_choices and (left := [score for score in plan.choice_scores if score not in possible]):
            log.info("a chat server does not tell how likely a text is: no score by %s", " and ".join(left))
        if plan.use_cache:
            log.info("answers are known by address and model name; that the same weights answer there is not checked")
        self._sampling = remote_sampling(plan)

    def key(self, question: Question, conversation: Conversation) -> list[Any]:
        """The server, the messages, what is shown in them, sampling and scores. Raises SwiftError."""
        if conversation.media.any and not self._chat:
            raise SwiftError("it shows images, videos or sounds, which completions of plain text do not take")
        scores = self.scores if isinstance(question, Choice) else WRITTEN
        return [
            self._remote.url,
            self._remote.model,
            self._chat,
            repr(conversation.messages),
            repr(self._sampling),
            scores,
            *shown(conversation.media, {}),
        ]

    async def start(self) -> Engine:
        """Reach the server, and try whether it tells what the scores of choices need. Raises SwiftError."""
        engine = await start_remote(self._remote)
        try:
            if self._asks_choices and self._chat and "letter" in self.scores:
                await engine.first_tokens(Conversation((Message("user", "Answer with A or B."),)), TOP)
            elif self._asks_choices and not self._chat and self.scores != WRITTEN:
                await engine.log_probs_of_text("Answer:", " A")
        except Refused as error:
            await engine.close()
            raise SwiftError(
                error.what, where=error.where, why=error.why, next="add --choice_scores generated"
            ) from error
        except SwiftError:
            await engine.close()
            raise
        return engine

    async def answer(self, engine: Engine, question: Question, conversation: Conversation) -> Answer:
        """Ask by chat, or complete the plain text of the question."""
        assert isinstance(engine, RemoteEngine)
        if self._chat:
            return await self._by_chat(engine, question, conversation)
        text = "\n\n".join(message.content for message in conversation.messages)
        scores = self._scores(question)
        letter = per_option = None
        if isinstance(question, Choice) and "letter" in scores:
            letter = await _log_probs(engine, text, {letter: letter for letter in question.options})
        if isinstance(question, Choice) and "text" in scores:
            per_option = per_byte(await _log_probs(engine, text, question.options), question)
        written = await engine.complete(text, self._limited(question)) if "generated" in scores else None
        return Answer(written, letter=letter, text=per_option)

    async def _by_chat(self, engine: RemoteEngine, question: Question, conversation: Conversation) -> Answer:
        scores, letter = self._scores(question), None
        if isinstance(question, Choice) and "letter" in scores:
            first = await engine.first_tokens(conversation, TOP)
            letter = {name: first[name] for name in question.options if name in first}
            letter = letter or await self._chosen(engine, question, conversation, min(first.values()))
        if "generated" not in scores:
            return Answer(letter=letter)
        message = await engine.chat(conversation, self._limited(question))
        return Answer(message.content, letter=letter)

    async def _chosen(
        self, engine: RemoteEngine, question: Choice, conversation: Conversation, most: float
    ) -> dict[str, float]:
        """The letter that the server takes when it may write nothing else; it is at most as likely as `most`."""
        letters = list(question.options)
        held = SamplingParams(max_tokens=LETTER_TOKENS, grammar=Constraint("choice", json.dumps(letters)))
        try:
            written = (await engine.chat(conversation, held)).content.strip()
        except SwiftError as error:
            once(f"a letter that is not among the {TOP} likeliest tokens is not known: {error.what}")
            return {}
        return {written: most} if written in letters else {}

    def _scores(self, question: Question) -> tuple[ChoiceScore, ...]:
        return self.scores if isinstance(question, Choice) else WRITTEN

    def _limited(self, question: Question) -> SamplingParams:
        if not (isinstance(question, Choice) and self._short):
            return self._sampling
        return replace(self._sampling, max_tokens=min(self._sampling.max_tokens, LETTER_TOKENS))


async def _log_probs(engine: RemoteEngine, prompt: str, options: Mapping[str, str]) -> dict[str, float]:
    """The log-probability of each option behind a prompt, as a base model goes on behind `Answer:`."""
    texts = [engine.log_probs_of_text(prompt, f" {text}") for text in options.values()]
    told = await asyncio.gather(*texts)
    return {name: sum(value for value, _ in tokens) for name, tokens in zip(options, told, strict=True)}


def per_byte(values: Mapping[str, float], question: Choice) -> dict[str, float]:
    """The log-probability of each option, divided by the bytes of its text."""
    return {name: value / len(question.options[name].encode()) for name, value in values.items()}


def shown(media: Media, facts: Mapping[str, Any]) -> list[Any]:
    """What is shown beside the text, by its content, and how it is prepared; nothing where nothing is.

    Raises SwiftError for a file that cannot be read.
    """
    if not media.any:
        return []
    return [dict(facts), [_content(source) for kind in MEDIA_TAGS for source in media.of(kind)]]


def _content(source: str | tuple[str, ...]) -> Any:
    if isinstance(source, tuple):
        return [_content(frame) for frame in source]
    if source.startswith((*REMOTE, "data:")):
        return source
    try:
        with open(source.removeprefix("file://"), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SwiftError("a medium cannot be read", where=source, why=error.strerror) from error


def model_facts(plan: InferPlan, prepared: Prepared) -> list[Any]:
    """Which weights answer, and in which precision."""
    adapter = plan.model.adapter
    own = adapter and identity(Path(adapter))
    return [identity(prepared.source), own, plan.model.dtype, repr(plan.model.quant)]


def remote_sampling(plan: EvalPlan, seed: int | None = None) -> SamplingParams:
    """How a server is to sample: by the flags alone, since the model's own settings are not known here."""
    sampling = plan_sampling(plan.generate, {})
    return SamplingParams(
        max_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_k=sampling.top_k if sampling.temperature else 0,
        top_p=sampling.top_p,
        repetition_penalty=sampling.repetition_penalty,
        num_beams=sampling.num_beams,
        stop=sampling.stop_words,
        seed=seed,
    )


async def start_remote(remote: RemotePlan) -> RemoteEngine:
    """Reach the server; one that is still loading is waited for. Raises SwiftError."""
    settings = RemoteSettings(
        url=remote.url, api_key=remote.token, model=remote.model, max_model_len=remote.max_model_len
    )
    until = time.monotonic() + remote.timeout
    while True:
        try:
            return await RemoteEngine.start(settings)
        except NotUp:
            if time.monotonic() > until:
                raise
        await asyncio.sleep(1.0)
