"""The model behind the routes: loaded or not yet, its names, and the way from a conversation to token ids."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from swift.core.errors import SwiftError
from swift.engines.base import Engine, Reader, SamplingParams
from swift.plan.infer import DEFAULT_LORA, seeds
from swift.plan.serve import Defaults, ServePlan
from swift.prompts.encode import Encoder, TooLong
from swift.prompts.images import BadMedium
from swift.prompts.messages import MEDIA_TAGS
from swift.prompts.tool_calls import CallSyntax
from swift.prompts.types import Conversation, Encoded, Media
from swift.serving.admission import Gate
from swift.serving.constraints import constraint
from swift.serving.errors import ApiError
from swift.serving.media import BODY_OF_MEDIA, admitted, at_addresses, blamed, places, refusal
from swift.serving.messages import answered, conversation
from swift.serving.metrics import Metrics
from swift.serving.sampling_params import sampling
from swift.serving.schema import ChatRequest, CompletionRequest, ModelCard
from swift.serving.token_bytes import TokenBytes
from swift.serving.tools import ToolUse, tool_use

T = TypeVar("T")

THINK_TOKENS = 8
"""Tokens at the end of a prompt that show whether it opens the thinking of the answer."""
BODY_BASE = 2**20
BODY_PER_TOKEN = 64
"""Bytes of JSON a token may take: the limit of a request's size follows the context length of the model."""


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to answer."""

    engine: Engine
    encoder: Encoder
    defaults: Defaults
    heads: frozenset[str | None] = frozenset()
    """The adapters (None: the model itself) that are reward models: they give scores, and no answers."""
    encoders: Mapping[str | None, Encoder] = field(default_factory=dict)
    """Those of adapters that were trained with another system text than `encoder` writes by itself."""

    def encoder_of(self, adapter: str | None) -> Encoder:
        """What writes the prompts of an adapter; None is the model itself."""
        return self.encoders.get(adapter, self.encoder)

    @cached_property
    def token_bytes(self) -> TokenBytes:
        """The bytes behind the engine's tokens."""
        return TokenBytes(self.engine.tokenizer)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request made ready: what the engine gets, and how its answer is read."""

    prompts: Sequence[tuple[int, ...]]
    sampling: SamplingParams
    adapter: str | None = None
    media: Media = field(default_factory=Media)
    use: ToolUse = field(default_factory=ToolUse)
    syntax: CallSyntax | None = None
    thinking: bool = False
    """The prompt ends where the thinking of the answer begins."""
    blame: str | None = None
    """The field to name when the engine refuses the request."""
    places: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Where the media of each kind stand in the request."""


class Service:
    """What all routes share. It exists before the model is loaded, so that /health can say so."""

    def __init__(self, plan: ServePlan):
        self.plan = plan
        self.gate = Gate(plan.max_in_flight)
        self.metrics = Metrics(self._gauges)
        self.created = int(time.time())
        self._loaded: Loaded | None = None
        self.closed = False
        self._seeds = seeds(plan.first_seed)
        # One thread for all: tokenizers are not made for several at once, and the event loop must not wait for them.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")

    def open(self, loaded: Loaded) -> None:
        """Answer from now on."""
        self._loaded = loaded

    @property
    def status(self) -> str:
        """`ok`, `loading` or `draining`."""
        if self.gate.draining:
            return "draining"
        return "ok" if self._loaded else "loading"

    @property
    def loaded(self) -> Loaded:
        """The model. Raises ApiError 503 before it is there."""
        if self._loaded is None:
            raise ApiError(503, "The model is still being loaded.", code="loading")
        return self._loaded

    @property
    def max_body_bytes(self) -> int:
        """The largest request that is read."""
        length = self._loaded.engine.max_model_len if self._loaded else 0
        media = BODY_OF_MEDIA if self._loaded and self.takes else 0
        return BODY_BASE + BODY_PER_TOKEN * length + media

    @property
    def takes(self) -> tuple[str, ...]:
        """The kinds of media that the model sees or hears."""
        images = self.loaded.encoder.images
        return () if images is None else images.kinds

    @property
    def model_names(self) -> tuple[str, ...]:
        """The base model's name and those of the adapters."""
        return (self.plan.model_name, *self.loaded.engine.adapters)

    @property
    def scores(self) -> bool:
        """Whether the model to ask first, that of `--ckpt_dir`, is a reward model."""
        names = self.model_names
        return self.adapter(DEFAULT_LORA if DEFAULT_LORA in names else names[0]) in self.loaded.heads

    def adapter(self, model: str) -> str | None:
        """The adapter that `model` names; None is the base. Raises ApiError 404 for a name that is not served."""
        if model == self.plan.model_name:
            return None
        if model in self.loaded.engine.adapters:
            return model
        message = f"`{model}` is not in the model_list: `{list(self.model_names)}`."
        raise ApiError(404, message, param="model", code="model_not_found")

    def writer(self, model: str) -> str | None:
        """The adapter that `model` names, where it is no reward model. Raises ApiError."""
        adapter = self.adapter(model)
        if adapter in self.loaded.heads:
            message = f"`{model}` is a reward model: it gives scores of answers (POST /v1/score) and nothing else."
            raise ApiError(400, message, param="model", code="reward_model")
        return adapter

    def judge(self, model: str) -> str | None:
        """The adapter that `model` names, where it is a reward model. Raises ApiError."""
        adapter = self.adapter(model)
        if adapter not in self.loaded.heads:
            names = [name for name in self.model_names if self.adapter(name) in self.loaded.heads]
            served = f"Reward models here: {', '.join(names)}." if names else "This server has no reward model."
            raise ApiError(400, f"`{model}` gives no scores. {served}", param="model", code="no_scores")
        return adapter

    def reader(self) -> Reader:
        """What makes vectors and scores of texts. Raises ApiError where the engine makes none."""
        reader = self.loaded.engine.reader
        if reader is None:
            message = "This engine gives no embeddings and no scores: use --infer_backend pt."
            raise ApiError(400, message, param="model", code="no_embeddings")
        return reader

    def cards(self) -> list[ModelCard]:
        """What /v1/models shows."""
        return [
            {
                "id": name,
                "object": "model",
                "created": self.created,
                "owned_by": self.plan.owned_by,
                "is_chat": self.plan.is_chat and self.adapter(name) not in self.loaded.heads,
                "is_multimodal": bool(self.takes),
                "max_model_len": self.loaded.engine.max_model_len,
                "root": self.plan.model_name,
                "parent": None if name == self.plan.model_name else self.plan.model_name,
            }
            for name in self.model_names
        ]

    async def prepare(self, body: ChatRequest | CompletionRequest) -> Prepared:
        """Make a request ready for the engine. Raises ApiError for what cannot be answered."""
        adapter = self.writer(body.model)
        encoder, media, use, syntax, ends = self.loaded.encoder_of(adapter), Media(), ToolUse(), None, ()
        if isinstance(body, ChatRequest):
            self._check_turns(body)
            use, syntax, ends = tool_use(body), encoder.call_syntax, encoder.stop_strings
            talk, begun = conversation(body, use, takes=self.takes)
            talk = await self._with_media(talk, body)
            ids, media = await self._apart(self._encode_chat, encoder, talk, begun, body)
            prompts, field = [ids], "messages"
            ends += encoder.tool_stop_strings if use.mode == "auto" else ()
        else:
            prompts, field = [await self.text_ids(prompt, "prompt") for prompt in _prompts(body)], "prompt"
        held, blame = constraint(body, use, syntax)
        return Prepared(
            prompts=prompts,
            adapter=adapter,
            media=media,
            sampling=sampling(
                body,
                self.loaded.defaults,
                room=min(self._room(prompt, field) for prompt in prompts),
                vocabulary=len(self.loaded.engine.tokenizer),
                max_logprobs=self.plan.max_logprobs,
                grammar=held,
                ends=(ends, encoder.stop_token_ids),
                seed=next(self._seeds) if body.seed is None else body.seed,
            ),
            use=use,
            syntax=syntax,
            thinking=use.mode == "auto" and self.text(prompts[0][-THINK_TOKENS:]).rstrip().endswith("<think>"),
            blame=blame,
            places={kind: places(body, kind) for kind in MEDIA_TAGS} if isinstance(body, ChatRequest) else {},
        )

    async def text_ids(self, text: str | Sequence[int], param: str) -> tuple[int, ...]:
        """The token ids of plain text, with the special tokens the tokenizer puts around it, or ids as they were sent.

        Raises ApiError for an id that the vocabulary does not have.
        """
        if isinstance(text, str):
            return tuple(await self._apart(lambda: self.loaded.engine.tokenizer(text)["input_ids"]))
        size = len(self.loaded.engine.tokenizer)
        if max(text) >= size:
            raise ApiError(400, f"Token {max(text)} is not in the vocabulary of {size}.", param=param)
        return tuple(text)

    async def answer(self, body: ChatRequest, param: str) -> Encoded:
        """A conversation with its last answer, as training has it. Raises ApiError."""
        talk = await self._with_media(answered(body, tool_use(body), takes=self.takes), body)
        encoder = self.loaded.encoder_of(self.adapter(body.model))
        given = await self._apart(self._encode_answered, encoder, talk, body, param)
        length, longest = len(given.input_ids), self.loaded.engine.max_model_len
        if length > longest:
            message = f"An answer with its prompt has {length} tokens; the model's context holds {longest}."
            raise ApiError(400, message, param=param, code="context_length_exceeded")
        return given

    def text(self, ids: Sequence[int], *, special: bool = True) -> str:
        """The text of token ids, with the special ones or without."""
        return self.loaded.engine.tokenizer.decode(list(ids), skip_special_tokens=not special)

    def _check_turns(self, body: ChatRequest) -> None:
        if not self.plan.is_chat and len(body.messages) > 1:
            message = "This model continues text and knows no turns. Please use the `completions` API."
            raise ApiError(400, message, param="messages")

    def _room(self, prompt: tuple[int, ...], param: str) -> int:
        """Tokens left for the answer. Raises ApiError when the prompt is empty or leaves none."""
        length = self.loaded.engine.max_model_len
        if not prompt:
            raise ApiError(400, "The prompt is empty.", param=param)
        if len(prompt) >= length:
            message = f"The prompt has {len(prompt)} tokens; the model's context holds {length}, the answer included."
            raise ApiError(400, message, param=param, code="context_length_exceeded")
        return length - len(prompt)

    async def _with_media(self, talk: Conversation, body: ChatRequest) -> Conversation:
        """The conversation with media that may be read, as data URLs and files. Raises ApiError."""
        if not talk.media.any:
            return talk
        with self.gate.fetch() if at_addresses(talk.media) else nullcontext():
            return replace(talk, media=await admitted(talk.media, body, self.plan.media))

    def _encode_chat(
        self, encoder: Encoder, talk: Conversation, begun: str, body: ChatRequest
    ) -> tuple[tuple[int, ...], Media]:
        """The ids, and the media as they stand in them."""
        try:
            prompt = encoder.encode(talk, inference=True)[-1]
        except BadMedium as error:
            raise refusal(error, blamed(error, talk.media, body, encoder.images)) from error
        except TooLong as error:
            raise ApiError(400, error.what, param="messages", code="context_length_exceeded") from error
        except SwiftError as error:
            raise ApiError(400, error.reason, param="messages") from error
        ids = prompt.input_ids
        if begun:
            ids = ids + self.loaded.engine.tokenizer(begun, add_special_tokens=False)["input_ids"]
        return tuple(ids), prompt.media

    def _encode_answered(self, encoder: Encoder, talk: Conversation, body: ChatRequest, param: str) -> Encoded:
        try:
            return encoder.answered(talk)
        except BadMedium as error:
            raise refusal(error, blamed(error, talk.media, body, encoder.images)) from error
        except SwiftError as error:
            raise ApiError(400, error.reason, param=param) from error

    async def _apart(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    def _gauges(self) -> dict[str, float]:
        engine = self._loaded.engine.statistics() if self._loaded else {}
        return {"in_flight": self.gate.answers, **engine}

    async def close(self) -> None:
        """End the answers under way and give the engine's memory back."""
        self._thread.shutdown(wait=False)
        if self._loaded and not self.closed:
            self.closed = True
            await self._loaded.engine.close()


def _prompts(body: CompletionRequest) -> Sequence[str | Sequence[int]]:
    """One entry a prompt, whichever of the four forms was sent. Raises ApiError for media, which are for chats."""
    for kind, given in (("images", body.images), ("videos", body.videos), ("audios", body.audios)):
        if given:
            raise ApiError(400, f"`{kind}` needs /v1/chat/completions.", param=kind)
    prompt = body.prompt
    if isinstance(prompt, str):
        return [prompt]
    return [prompt] if isinstance(prompt[0], int) else prompt  # type: ignore[list-item,return-value]
