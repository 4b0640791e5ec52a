"""Texts of lm-evaluation-harness, answered by a model of this machine or by a server.

A task asks how likely a text is behind another (log-likelihood), how likely a whole text is (rolling), or for an answer
up to a stop word. Its prompts are plain texts for base models, and turns of a chat for the others: then the template of
`swift infer` renders them. What the harness's own `hf` model does with tokens is done here too: the space at the end of
a prompt belongs to what follows it, an empty prompt is the bos token, and what is too long loses its beginning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lm_eval.models.utils import normalize_gen_kwargs  # pyright: ignore[reportMissingImports]  # an extra
from lm_eval.utils import (  # pyright: ignore[reportMissingImports]  # as above
    get_rolling_token_windows,
    make_disjoint_window,
)

from swift.core.errors import SwiftError
from swift.core.log import once
from swift.engines.base import Engine, Request, SamplingParams
from swift.engines.factory import Prepared, start
from swift.engines.remote import RemoteEngine
from swift.evaluation.answerers import model_facts, remote_sampling, start_remote
from swift.plan.evaluation import EvalPlan, RemotePlan
from swift.plan.infer import InferPlan
from swift.prompts.types import Conversation, Message

Kind = str
"""`loglikelihood`, `loglikelihood_rolling` or `generate_until`."""
Response = Any
"""[log-likelihood, whether greedy decoding gives the text], a log-likelihood, or an answer."""
FOLLOWED = ("until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "num_beams")
"""What a task says of its answers, and is done."""


class Chats:
    """Chats that the harness carries around as texts."""

    def __init__(self) -> None:
        self._turns: dict[str, tuple[list[Mapping[str, str]], bool]] = {}

    def text(self, turns: Sequence[Mapping[str, str]], begins_answer: bool) -> str:
        """The turns as one text; unless it `begins_answer`, the last turn is the beginning of the answer."""
        text = json.dumps(turns, ensure_ascii=False)
        self._turns[text] = (list(turns), begins_answer)
        return text

    def conversation(self, text: str) -> tuple[Conversation, str] | None:
        """The conversation behind a text, and the beginning of its answer; None for a plain text."""
        if text not in self._turns:
            return None
        turns, begins_answer = self._turns[text]
        opening = "" if begins_answer else turns[-1]["content"]
        roles = turns if begins_answer else turns[:-1]
        return Conversation(tuple(Message(turn["role"], turn["content"]) for turn in roles)), opening  # type: ignore[arg-type]


class HarnessAnswerer(Protocol):
    """Answers the requests of tasks by an engine of its own."""

    chats: Chats | None
    """None where prompts are plain texts."""

    def refuse(self, task: str, kind: Kind) -> None:
        """Raise SwiftError for a kind of request that cannot be answered."""
        ...

    def key(self, kind: Kind, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What decides the answers."""
        ...

    async def start(self) -> Engine:
        """The engine, with the weights loaded or the server reached."""
        ...

    async def answer(self, engine: Engine, kind: Kind, arguments: Sequence[tuple[Any, ...]]) -> list[Response]:
        """One response for each request. Raises SwiftError where there is none."""
        ...


class LocalHarness:
    """The model of an InferPlan."""

    def __init__(self, eval_plan: EvalPlan, plan: InferPlan, prepared: Prepared):
        self.chats = None if prepared.one_turn else Chats()
        self._eval_plan = eval_plan
        self._plan = plan
        self._prepared = prepared
        self._model = model_facts(plan, prepared)
        self._tokens = prepared.encoder.tokens

    def refuse(self, task: str, kind: Kind) -> None:
        """Nothing is."""

    def key(self, kind: Kind, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Weights, precision, token ids and sampling."""
        if kind == "loglikelihood":
            asked: list[Any] = [self._pair(*texts) for texts in arguments]
        elif kind == "generate_until":
            asked = [(self._prompt(text), self._sampling(kwargs, at)) for at, (text, kwargs) in enumerate(arguments)]
        else:
            asked = [self._plain(text) for (text,) in arguments]
        return [self._model, kind, repr(asked)]

    async def start(self) -> Engine:
        """Load the weights."""
        return await start(self._plan, self._prepared)

    async def answer(self, engine: Engine, kind: Kind, arguments: Sequence[tuple[Any, ...]]) -> list[Response]:
        """Read a prompt once for all texts behind it."""
        if kind == "generate_until":
            return [await self._written(engine, text, kwargs, at) for at, (text, kwargs) in enumerate(arguments)]
        if kind == "loglikelihood_rolling":
            return [await self._rolling(engine, text) for (text,) in arguments]
        pairs = [self._cut(engine, *self._pair(*texts)) for texts in arguments]
        known: dict[tuple[tuple[int, ...], tuple[int, ...]], list[Any]] = {}
        for prompt in dict.fromkeys(prompt for prompt, _ in pairs):
            texts = list(dict.fromkeys(text for other, text in pairs if other == prompt))
            known |= zip(
                ((prompt, text) for text in texts), await self._likelihoods(engine, prompt, texts), strict=True
            )
        return [known[pair] for pair in pairs]

    async def _likelihoods(
        self, engine: Engine, prompt: tuple[int, ...], texts: Sequence[tuple[int, ...]]
    ) -> list[list[Any]]:
        values = await engine.log_probs(prompt, [text for text in texts if text], self._plan.engine.default_adapter, 1)
        rest = iter(values)
        responses: list[list[Any]] = []
        for text in texts:
            tokens = next(rest) if text else []
            greedy = all(token.top[0][1] == token.token_id for token in tokens)
            responses.append([sum(token.logprob for token in tokens), greedy])
        return responses

    async def _rolling(self, engine: Engine, text: str) -> float:
        windows = get_rolling_token_windows(list(self._plain(text)), self._opening, engine.max_model_len, 1)
        total = 0.0
        for context, predicted in map(make_disjoint_window, windows):
            ((value, _),) = await self._likelihoods(engine, tuple(context), [tuple(predicted)])
            total += value
        return total

    async def _written(self, engine: Engine, text: str, kwargs: Mapping[str, Any], at: int) -> str:
        sampling = self._sampling(kwargs, at)
        room = engine.max_model_len - sampling.max_tokens
        if room < 1:
            raise SwiftError(
                f"the task wants up to {sampling.max_tokens} tokens, the context holds {engine.max_model_len}",
                next="add --max_new_tokens",
            )
        ids = self._prompt(text)
        if len(ids) > room:
            _say_cut(engine)
        request = Request(
            id="task",
            prompt_ids=ids[-room:],
            sampling=sampling,
            adapter=self._plan.engine.default_adapter,
        )
        written = ""
        async for delta in engine.stream(request):
            if delta.error:
                raise SwiftError(delta.error)
            written += delta.text
        return written

    def _sampling(self, kwargs: Mapping[str, Any], at: int) -> SamplingParams:
        """A task says how its answers are sampled; flags that were given say more. Request `at` has its own seed."""
        return task_sampling(self._eval_plan, kwargs, self._prepared.sampling_of(1, seed=self._plan.seed + at))

    def _pair(self, context: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids of a prompt and of the text behind it."""
        if context == "":
            ids = self._text(continuation)
            return ((self._opening,), ids) if ids[:1] != (self._opening,) else (ids[:1], ids[1:])
        if self.chats is not None and self.chats.conversation(context) is not None:
            return self._prompt(context), self._text(continuation)
        stripped = context.rstrip()
        whole = self._plain(context + continuation)
        prompt = self._plain(stripped)
        return prompt, whole[len(prompt) :]

    def _prompt(self, text: str) -> tuple[int, ...]:
        chat = self.chats.conversation(text) if self.chats is not None else None
        if chat is None:
            return self._plain(text)
        conversation, opening = chat
        return (*self._prepared.encoder.prompt_ids(conversation), *(self._text(opening) if opening else ()))

    def _plain(self, text: str) -> tuple[int, ...]:
        if self._prepared.one_turn:
            return tuple(self._prepared.encoder.prompt_ids(Conversation((Message("user", text),))))
        return tuple(self._prepared.tokenizer(text)["input_ids"])

    def _text(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokens.of_texts([text])[0])

    @property
    def _opening(self) -> int:
        """Stands before a text that has no prompt."""
        tokens = self._tokens
        if tokens.bos is None and not tokens.eos:
            raise SwiftError("the tokenizer has neither a bos nor an eos token to begin a text with")
        return tokens.eos[0] if tokens.bos is None else tokens.bos

    def _cut(
        self, engine: Engine, prompt: tuple[int, ...], text: tuple[int, ...]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        excess = len(prompt) + len(text) - engine.max_model_len
        if excess <= 0:
            return prompt, text
        if excess >= len(prompt):
            raise SwiftError(f"a text has {len(text)} tokens, the context holds {engine.max_model_len}")
        _say_cut(engine)
        return prompt[excess:], text


class RemoteHarness:
    """A server that speaks the OpenAI API; how likely a text is, only its completions tell (echo)."""

    def __init__(self, plan: EvalPlan, remote: RemotePlan):
        self.chats = None if remote.is_chat is False else Chats()
        self._plan = plan
        self._remote = remote

    def refuse(self, task: str, kind: Kind) -> None:
        """Chat servers do not tell how likely a given text is, and no server that of a text without a prompt."""
        if kind == "generate_until" or (kind == "loglikelihood" and self.chats is None):
            return
        server = "a server" if self.chats is None else "a chat server"
        raise SwiftError(
            f"{task} asks how likely texts are, which {server} does not tell",
            where="--eval_dataset",
            next="add --eval_is_chat_model false" if kind == "loglikelihood" else "give the model itself, not its URL",
        )

    def key(self, kind: Kind, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The server, the texts and the sampling."""
        asked = [
            (text, repr(self._sampling(rest[0], at)) if kind == "generate_until" else rest)
            for at, (text, *rest) in enumerate(arguments)
        ]
        return [self._remote.url, self._remote.model, kind, asked]

    async def start(self) -> Engine:
        """Reach the server."""
        return await start_remote(self._remote)

    async def answer(self, engine: Engine, kind: Kind, arguments: Sequence[tuple[Any, ...]]) -> list[Response]:
        """A request for each; equal ones are sent once."""
        assert isinstance(engine, RemoteEngine)
        if kind == "generate_until":
            return [await self._written(engine, text, kwargs, at) for at, (text, kwargs) in enumerate(arguments)]
        responses: list[Response] = []
        for context, continuation in arguments:
            tokens = await engine.log_probs_of_text(context, continuation)
            responses.append([sum(value for value, _ in tokens), all(greedy for _, greedy in tokens)])
        return responses

    async def _written(self, engine: RemoteEngine, text: str, kwargs: Mapping[str, Any], at: int) -> str:
        sampling = self._sampling(kwargs, at)
        chat = self.chats.conversation(text) if self.chats is not None else None
        if chat is None:
            return await engine.complete(text, sampling)
        conversation, opening = chat
        if opening:
            raise SwiftError("the task begins the answer itself, which a chat server does not let it do")
        return (await engine.chat(conversation, sampling)).content

    def _sampling(self, kwargs: Mapping[str, Any], at: int) -> SamplingParams:
        return task_sampling(self._plan, kwargs, remote_sampling(self._plan, seed=at))


def task_sampling(plan: EvalPlan, kwargs: Mapping[str, Any], base: SamplingParams) -> SamplingParams:
    """How a task has its answers sampled, and over it the flags that were given; ends are those of `base` as well."""
    flags = {name: value for name, value in vars(plan.generate).items() if name in plan.given}
    if "max_new_tokens" in flags:
        flags["max_gen_toks"] = flags.pop("max_new_tokens")
        kwargs = {name: value for name, value in kwargs.items() if not name.startswith("max_")}
    wanted = normalize_gen_kwargs({**kwargs, **flags})
    unheard = sorted(wanted.keys() - {*FOLLOWED, "stop_words"})
    if unheard:
        once(f"what the task says of {', '.join(unheard)} is not followed here")
    stop = (*(text for text in wanted["until"] if text), *base.stop)
    return SamplingParams(
        max_tokens=wanted["max_gen_toks"],
        temperature=float(wanted.get("temperature", 1.0)) if wanted["do_sample"] else 0.0,
        top_k=max(0, int(wanted.get("top_k") or 0)),
        top_p=float(wanted.get("top_p") or 1.0),
        repetition_penalty=float(wanted.get("repetition_penalty") or 1.0),
        num_beams=int(wanted.get("num_beams") or 1),
        stop=tuple(dict.fromkeys(stop)),
        stop_token_ids=base.stop_token_ids,
        seed=base.seed if wanted["do_sample"] else None,
    )


def _say_cut(engine: Engine) -> None:
    once(f"prompts longer than the context of {engine.max_model_len} tokens lose their beginning")
