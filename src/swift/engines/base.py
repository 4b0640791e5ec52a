"""The Engine protocol: token ids in, deltas out. Infer, deploy, eval and the pages know nothing else of a backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from swift.core.errors import SwiftError
from swift.prompts.types import Encoded, Media

FinishReason = Literal["stop", "length", "abort", "error"]
NOTHING_SHOWN = Media()


@dataclass(frozen=True)
class Constraint:
    """What an answer's text is held to: a JSON schema, a regular expression, one of a JSON list of texts, or a Lark
    grammar as llguidance has it."""

    kind: Literal["json", "regex", "choice", "lark"]
    text: str


JSON_OBJECT = Constraint("json", '{"type": "object"}')


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How to pick tokens. Temperature 0 is greedy; the seed makes a sampled answer repeat."""

    max_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    """0 keeps the whole vocabulary."""
    top_p: float = 1.0
    min_p: float = 0.0
    """Tokens below this share of the likeliest one's probability are left out; 0 leaves none out."""
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Token ids and what is added to their logits."""
    length_penalty: float = 1.0
    num_beams: int = 1
    n: int = 1
    seed: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    """Go on past the ends that the model names itself; `stop` and `stop_token_ids` still end the answer."""
    logprobs: int | None = None
    """None gives none; k gives the chosen token's log-probability and those of the k likeliest."""
    grammar: Constraint | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt. `adapter` names a LoRA the engine serves; None is the engine's default model."""

    id: str
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    adapter: str | None = None
    media: Media = field(default_factory=Media)


@dataclass(frozen=True)
class TokenLogprob:
    """A token of the answer, its log-probability (natural log) and the likeliest tokens in its place."""

    token: str
    token_id: int
    logprob: float
    top: tuple[tuple[str, int, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Delta:
    """A piece of answer number `index` (0 to n-1). `text` never ends inside a character or a possible stop string.

    The last delta of an index carries `finish_reason`; with "error", `error` says what happened.
    Stop strings and stop tokens are not part of the text.
    """

    request_id: str
    index: int = 0
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    error: str | None = None
    cached_tokens: int = 0


class NoLogProbs(SwiftError):
    """This engine does not tell how likely a given text is."""

    def __init__(self, backend: str):
        super().__init__(f"{backend} does not tell how likely a given text is", next="use --infer_backend pt")


class Reader(Protocol):
    """Reads whole texts, and answers none. `adapter` is as in a request."""

    async def embed(self, texts: Sequence[tuple[int, ...]], adapter: str | None = None) -> list[list[float]]:
        """A vector of length 1 for each text. Raises SwiftError for what cannot be read."""
        ...

    async def score(self, answers: Sequence[Encoded], adapter: str | None = None) -> list[float]:
        """The number that the value head gives each answer, whose prompt may show media. Raises SwiftError where there
        is no head."""
        ...


class Engine(Protocol):
    """A loaded model that answers many requests at once."""

    tokenizer: Any
    max_model_len: int
    """Tokens of prompt and answer together."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the LoRAs it serves."""
        ...

    @property
    def reader(self) -> Reader | None:
        """What makes vectors and scores of texts; None in an engine that makes none."""
        ...

    def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Deltas as they are made. Closing the iterator aborts the request and frees its place."""
        ...

    async def log_probs(
        self,
        prompt_ids: tuple[int, ...],
        continuations: Sequence[tuple[int, ...]],
        adapter: str | None = None,
        top: int = 0,
        media: Media = NOTHING_SHOWN,
    ) -> list[list[TokenLogprob]]:
        """The log-probability (natural log) of each token of each continuation, which follows the prompt, and the `top`
        likeliest tokens in its place. `media` are shown in the prompt.

        Raises NoLogProbs in an engine that does not tell, SwiftError for what it cannot read.
        """
        ...

    async def add_adapter(self, name: str, folder: str) -> None:
        """Serve the LoRA at `folder` under `name` from now on. Raises SwiftError when it is another model's."""
        ...

    def statistics(self) -> dict[str, float]:
        """Gauges for /metrics: running, waiting, kv_used (a share from 0 to 1)."""
        ...

    async def close(self) -> None:
        """Stop the work and give the memory back."""
        ...
