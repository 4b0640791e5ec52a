"""From a request to the engine's `SamplingParams`; what cannot be done is refused with the field's name."""

from __future__ import annotations

from swift.engines.base import Constraint, SamplingParams
from swift.plan.serve import Defaults
from swift.serving.errors import ApiError
from swift.serving.schema import ChatRequest, CompletionRequest, Generation

GREEDY_BELOW = 1e-5
"""A temperature this low would overflow the logits; it means greedy."""


NOT_BUILT = (
    "typical_p", "bad_words", "allowed_token_ids", "use_beam_search", "guided_grammar", "guided_whitespace_pattern",
    "prompt_logprobs", "chat_template", "documents", "audio", "web_search_options",
)  # fmt: skip
"""Fields of OpenAI and vLLM that would change the answer. Other fields that are not known here are ignored."""


def sampling(
    body: Generation,
    defaults: Defaults,
    *,
    room: int,
    vocabulary: int,
    max_logprobs: int,
    grammar: Constraint | None,
    ends: tuple[tuple[str, ...], tuple[int, ...]],
    seed: int | None,
) -> SamplingParams:
    """How to answer `body` when `room` tokens are left and the tokenizer has `vocabulary` tokens.

    `ends` are texts and token ids that end any answer, unless it goes on past them (`ignore_eos`).

    Raises ApiError for values that do not fit.
    """
    _refuse_unsupported(body)
    temperature = defaults.temperature if body.temperature is None else body.temperature
    greedy = temperature < GREEDY_BELOW or body.top_p == 0
    top_k = defaults.top_k if body.top_k is None else max(body.top_k, 0)
    given = (body.stop,) if isinstance(body.stop, str) else body.stop or ()
    stop = tuple(filter(None, given)) or defaults.stop
    end_texts, end_ids = ((), ()) if body.ignore_eos else ends
    return SamplingParams(
        max_tokens=_max_tokens(body, defaults, room),
        temperature=0.0 if greedy else temperature,
        top_k=top_k,
        top_p=(defaults.top_p if body.top_p is None else body.top_p) or 1.0,
        min_p=body.min_p or 0.0,
        repetition_penalty=body.repetition_penalty or defaults.repetition_penalty,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=_logit_bias(body, vocabulary),
        length_penalty=defaults.length_penalty if body.length_penalty is None else body.length_penalty,
        num_beams=body.num_beams or defaults.num_beams,
        n=answers(body),
        seed=seed,
        min_tokens=min(body.min_tokens or 0, room),
        stop=tuple(dict.fromkeys((*stop, *end_texts))),
        stop_token_ids=tuple(dict.fromkeys((*(body.stop_token_ids or ()), *end_ids))),
        ignore_eos=bool(body.ignore_eos),
        logprobs=_logprobs(body, max_logprobs),
        grammar=grammar,
    )


def answers(body: Generation) -> int:
    """How many answers a prompt gets before the best are picked."""
    if body.best_of is None:
        return body.n
    if body.best_of < body.n:
        raise ApiError(400, f"`best_of` ({body.best_of}) is below `n` ({body.n}).", param="best_of")
    if body.stream and body.best_of > body.n:
        raise ApiError(400, "`best_of` above `n` cannot be streamed.", param="best_of")
    return body.best_of


def wants_top(body: Generation) -> bool:
    """Whether log-probabilities were asked for."""
    if isinstance(body, CompletionRequest):
        return body.logprobs is not None and body.logprobs is not False
    return isinstance(body, ChatRequest) and bool(body.logprobs)


def _logit_bias(body: Generation, vocabulary: int) -> tuple[tuple[int, float], ...]:
    biases = tuple(body.logit_bias.items()) if body.logit_bias else ()
    for token_id, _ in biases:
        if token_id >= vocabulary:
            message = f"Token {token_id} is not in the vocabulary of {vocabulary}."
            raise ApiError(400, message, param="logit_bias")
    return biases


def _max_tokens(body: Generation, defaults: Defaults, room: int) -> int:
    """What was asked for, cut to what the context holds."""
    given = body.max_completion_tokens if isinstance(body, ChatRequest) else None
    wanted = next((n for n in (given, body.max_tokens, defaults.max_tokens) if n is not None), None)
    return room if wanted is None else min(wanted, room)


def _logprobs(body: Generation, limit: int) -> int | None:
    top = body.top_logprobs
    if not wants_top(body):
        if top:
            raise ApiError(400, "`top_logprobs` needs `logprobs` to be true.", param="top_logprobs")
        return 0 if answers(body) > body.n else None
    param = "top_logprobs"
    if isinstance(body, CompletionRequest) and not isinstance(body.logprobs, bool):
        param, top = "logprobs", body.logprobs
    if (top or 0) > limit:
        message = f"The value of {param}({top}) is greater than the server's max_logprobs({limit})."
        raise ApiError(400, message, param=param)
    return top or 0


def _refuse_unsupported(body: Generation) -> None:
    """A field that would change the answer and is not built is refused, never ignored."""
    given = body.model_extra or {}
    for name in NOT_BUILT:
        if given.get(name):
            raise ApiError(400, f"`{name}` is not supported.", param=name)
    if given.get("modalities") not in (None, [], ["text"]):
        raise ApiError(400, "Only text is written here.", param="modalities")
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "`stream_options` needs `stream` to be true.", param="stream_options")
    for name in ("echo", "suffix"):
        if isinstance(body, ChatRequest) and given.get(name):
            raise ApiError(400, f"`{name}` belongs to /v1/completions.", param=name)
    if isinstance(body, CompletionRequest):
        if body.suffix:
            raise ApiError(400, "`suffix` is not supported.", param="suffix")
        if body.echo and wants_top(body) and (body.stream or body.logprobs is True):
            message = "`echo` with `logprobs` needs a number of `logprobs`, and no stream."
            raise ApiError(400, message, param="echo")
        if body.max_tokens == 0 and (body.stream or not body.echo):
            raise ApiError(400, "`max_tokens` 0 needs `echo`, and no stream.", param="max_tokens")
