"""The wire format: OpenAI's request types plus the sampling fields of the 2.5 release."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypedDict

INT64 = 2**63 - 1


JsonObject = dict[str, Any]


class _Model(BaseModel):
    """Keys that nobody here knows are kept, so that whoever reads the object can name them."""

    model_config = ConfigDict(allow_inf_nan=False, extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _null_is_left_out(cls, value: Any) -> Any:
        """A null is as good as nothing in a field that may be left out, as clients send all the fields they know."""
        if not isinstance(value, dict):
            return value
        optional = {field.alias or name for name, field in cls.model_fields.items() if not field.is_required()}
        return {key: inner for key, inner in value.items() if inner is not None or key not in optional}


class ContentPart(_Model):
    """A piece of a message: text, or an image, video or audio for models that take them.

    What media are is looked at where messages are read, which names the part and not all that it could have been.
    """

    type: Literal["text", "refusal", "image_url", "video_url", "audio_url", "input_audio", "image", "video", "audio"]
    text: str | None = None
    image_url: Any = None
    video_url: Any = None
    audio_url: Any = None
    image: Any = None
    video: Any = None
    audio: Any = None
    source: Any = None
    refusal: str | None = None
    input_audio: Any = None


class FunctionCall(_Model):
    """A call as the model made it; `arguments` is JSON text."""

    name: str
    arguments: str = ""


class ToolCall(_Model):
    """One call in an assistant turn of the history."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(_Model):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None
    tool_call_id: str | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking: str | None = None


class Function(_Model):
    """A function the model may call; `parameters` is a JSON schema."""

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    parameters: JsonObject | None = None


class Tool(_Model):
    """A tool of the model. Only functions exist."""

    type: Literal["function"] = "function"
    function: Function


class NamedFunction(_Model):
    """The function that must be called."""

    name: str


class NamedTool(_Model):
    """`tool_choice` as an object."""

    type: Literal["function"] = "function"
    function: NamedFunction


class AllowedNames(_Model):
    """The tools of a request that may be called, or (`required`) of which one must be."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1)


class AllowedTools(_Model):
    """`tool_choice` as a choice among some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedNames


class SchemaFormat(_Model):
    """The schema an answer is held to."""

    model_config = ConfigDict(extra="forbid")
    name: str = "answer"
    description: str | None = None
    json_schema: JsonObject | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(_Model):
    """Free text, any JSON object (or, as some servers have it, one of `schema`), or JSON of one schema."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None
    inline_schema: JsonObject | None = Field(default=None, alias="schema")


class StreamOptions(_Model):
    """Where the token counts of a stream go."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


StopText = Annotated[str, Field(max_length=1000)]


class Body(_Model):
    """A whole request. Fields that nobody here knows are kept, so that those which would matter can be refused."""

    model_config = ConfigDict(allow_inf_nan=False, extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        """Refuse JSON that cannot be written as UTF-8 (lone surrogates): no tokenizer takes it."""
        try:
            if isinstance(value, dict):
                json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a text holds a lone surrogate, which is no valid Unicode") from None
        return value


TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
LogitBias = dict[TokenId, Annotated[float, Field(ge=-100, le=100)]]


class Generation(Body):
    """The fields that chat and completions share."""

    model: str
    max_tokens: int | None = Field(default=None, ge=1, le=INT64)
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, le=2**31 - 1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    n: int = Field(default=1, ge=1, le=128)
    best_of: int | None = Field(default=None, ge=1, le=128)
    seed: int | None = Field(default=None, ge=-INT64, le=INT64)
    stop: StopText | list[StopText] | None = None
    stop_token_ids: list[TokenId] | None = None
    ignore_eos: bool | None = False
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=INT64)
    presence_penalty: float | None = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=0.0, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    length_penalty: float | None = Field(default=None, ge=-100, le=100)
    num_beams: int | None = Field(default=None, ge=1, le=64)
    min_tokens: int | None = Field(default=0, ge=0, le=INT64)
    logit_bias: LogitBias | None = Field(default=None, max_length=1024)
    response_format: ResponseFormat | None = None
    guided_json: JsonObject | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    structured_outputs: JsonObject | None = None
    images: Any = None
    videos: Any = None
    audios: Any = None


class ChatRequest(Generation):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=INT64)
    logprobs: bool | None = False
    tools: list[Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | AllowedTools | None = None
    parallel_tool_calls: bool | None = True
    functions: list[Function] | None = None
    function_call: Literal["auto", "none"] | NamedFunction | None = None


class CompletionRequest(Generation):
    """POST /v1/completions. `logprobs` is OpenAI's number, or `true` (with `top_logprobs`) as in the 2.5 release."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1)]
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1)]
    )
    max_tokens: int | None = Field(default=None, ge=0, le=INT64)
    """0 writes nothing, which makes sense with `echo`."""
    logprobs: bool | Annotated[int, Field(ge=0, le=INT64)] | None = None
    echo: bool | None = False
    suffix: str | None = None


# Answers are plain dictionaries: they are written once and never read back. The types say their shape to the
# type checker and to /openapi.json.


class CachedTokens(TypedDict):
    """Prompt tokens that an earlier request had left in the cache."""

    cached_tokens: int


class Usage(TypedDict):
    """Token counts of a request, all its choices together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class TopLogprob(TypedDict):
    """A token that could have stood here."""

    token: str
    logprob: float
    bytes: list[int] | None


class ContentLogprob(TypedDict):
    """A token of the answer and the likeliest ones in its place."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """Log-probabilities of a chat answer."""

    content: list[ContentLogprob]


class CompletionLogprobs(TypedDict):
    """Log-probabilities in the older form of /v1/completions."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CalledFunction(TypedDict, total=False):
    """Name and arguments (JSON text) of a call; pieces of them in a stream."""

    name: str
    arguments: str


class CallDelta(TypedDict, total=False):
    """A call, or the next piece of it in a stream."""

    index: int
    id: str
    type: str
    function: CalledFunction


class AnswerMessage(TypedDict):
    """The model's turn. `function_call` is there for requests with `functions`."""

    role: str
    content: str | None
    tool_calls: list[CallDelta] | None
    function_call: NotRequired[CalledFunction | None]


class ChatChoice(TypedDict):
    """One of n answers."""

    index: int
    message: AnswerMessage
    finish_reason: str
    logprobs: ChatLogprobs | None


class ChatCompletion(TypedDict):
    """Answer of POST /v1/chat/completions."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class CompletionChoice(TypedDict):
    """One of n answers to one of the prompts."""

    index: int
    text: str
    finish_reason: str | None
    logprobs: CompletionLogprobs | ChatLogprobs | None


class Completion(TypedDict):
    """Answer of POST /v1/completions."""

    id: str
    object: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class ModelCard(TypedDict):
    """A name that `model` may have."""

    id: str
    object: str
    created: int
    owned_by: str
    is_chat: bool
    is_multimodal: bool
    max_model_len: int
    root: str
    parent: str | None


class ModelList(TypedDict):
    """Answer of GET /v1/models."""

    object: str
    data: list[ModelCard]


class Health(TypedDict):
    """Answer of GET /health."""

    status: str


class Version(TypedDict):
    """Answer of GET /version."""

    version: str


class ErrorBody(TypedDict):
    """What is wrong and which field is to blame."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(TypedDict):
    """Body of every answer that is not 2xx."""

    error: ErrorBody
    object: str
    message: str
