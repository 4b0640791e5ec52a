"""The wire format of the routes that read texts and write none: OpenAI's embeddings and vLLM's scores."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, Field
from typing_extensions import TypedDict

from swift.serving.schema import Body, ChatMessage, TokenId, Tool

Texts = Annotated[list[str], Field(min_length=1, max_length=2048)]
TextOfIds = Annotated[list[TokenId], Field(min_length=1)]
TextsOfIds = Annotated[list[TextOfIds], Field(min_length=1, max_length=2048)]


class EmbeddingRequest(Body):
    """POST /v1/embeddings."""

    model: str
    input: str | Texts | TextOfIds | TextsOfIds
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1, le=2**31 - 1)


class ScoreRequest(Body):
    """POST /v1/score: prompts and answers under vLLM's names, or one conversation that ends with its answer."""

    model: str
    text_1: str | Texts | None = Field(default=None, validation_alias=AliasChoices("text_1", "queries", "data_1"))
    text_2: str | Texts | None = Field(
        default=None, validation_alias=AliasChoices("text_2", "documents", "items", "data_2")
    )
    messages: list[ChatMessage] | None = Field(default=None, min_length=1)
    tools: list[Tool] | None = None
    use_activation: bool = False
    truncate_prompt_tokens: int | None = None


class EmbeddingUsage(TypedDict):
    """Token counts of a request for vectors."""

    prompt_tokens: int
    total_tokens: int


class Embedding(TypedDict):
    """The vector of one text: numbers, or base64 of 32-bit floats."""

    object: str
    index: int
    embedding: list[float] | str


class Embeddings(TypedDict):
    """Answer of POST /v1/embeddings."""

    object: str
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class ScoreUsage(EmbeddingUsage):
    """Token counts of a request for scores."""

    completion_tokens: int


class Score(TypedDict):
    """The score of one answer."""

    index: int
    object: str
    score: float


class Scores(TypedDict):
    """Answer of POST /v1/score."""

    id: str
    object: str
    created: int
    model: str
    data: list[Score]
    usage: ScoreUsage
