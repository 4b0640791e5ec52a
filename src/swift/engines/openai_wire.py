"""Requests and answers as the OpenAI API has them on the wire."""

from __future__ import annotations

import base64
import json
import mimetypes
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from swift.core.errors import SwiftError
from swift.engines.base import JSON_OBJECT, Constraint, Delta, FinishReason, SamplingParams, TokenLogprob
from swift.prompts.messages import MEDIA_TAGS
from swift.prompts.types import Media, Message, ToolCall

FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "stop",
    "tool_calls": "stop",
    "abort": "abort",
}


def completion_body(sampling: SamplingParams, *, extensions: bool) -> dict[str, Any]:
    """The sampling fields of `/v1/completions`. Raises SwiftError for a wish the wire has no field for."""
    body = _shared_body(sampling, extensions=extensions)
    body["max_tokens"] = sampling.max_tokens
    if sampling.logprobs is not None:
        body["logprobs"] = sampling.logprobs
    if extensions:
        body["return_token_ids"] = True
    return body


def chat_body(sampling: SamplingParams, *, extensions: bool) -> dict[str, Any]:
    """The sampling fields of `/v1/chat/completions`; one answer, no log-probabilities."""
    if sampling.n != 1 or sampling.logprobs is not None:
        raise SwiftError("a chat server is asked for one answer without log-probabilities", next="use its completions")
    return {**_shared_body(sampling, extensions=extensions), "max_completion_tokens": sampling.max_tokens}


def _shared_body(sampling: SamplingParams, *, extensions: bool) -> dict[str, Any]:
    if sampling.num_beams > 1:
        raise SwiftError("a remote server does no beam search", where="num_beams", next="use num_beams 1")
    body: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p, "n": sampling.n}
    body |= {
        name: value
        for name, value in (
            ("seed", sampling.seed),
            ("stop", list(sampling.stop) or None),
            ("presence_penalty", sampling.presence_penalty or None),
            ("frequency_penalty", sampling.frequency_penalty or None),
            ("logit_bias", {str(token_id): bias for token_id, bias in sampling.logit_bias} or None),
            ("response_format", _response_format(sampling.grammar)),
        )
        if value is not None
    }
    beyond = {
        "top_k": sampling.top_k or None,
        "repetition_penalty": sampling.repetition_penalty if sampling.repetition_penalty != 1 else None,
        "min_tokens": sampling.min_tokens or None,
        "min_p": sampling.min_p or None,
        "ignore_eos": sampling.ignore_eos or None,
        "structured_outputs": _structured_outputs(sampling.grammar),
        "stop_token_ids": list(sampling.stop_token_ids) or None,
    }
    wanted = {name: value for name, value in beyond.items() if value is not None}
    # The likeliest token is taken whatever top_k says, and a server knows the end-of-turn tokens of its model.
    dispensable = {"stop_token_ids"} | ({"top_k", "min_p"} if sampling.temperature == 0 else set())
    needed = sorted(wanted.keys() - dispensable)
    if needed and not extensions:
        raise SwiftError(f"this server takes no `{needed[0]}`", where="the OpenAI API", next=f"leave {needed[0]} out")
    return body | wanted if extensions else body


def _response_format(grammar: Constraint | None) -> dict[str, Any] | None:
    if grammar is None or grammar.kind != "json":
        return None
    if grammar == JSON_OBJECT:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": json.loads(grammar.text)}}


def _structured_outputs(grammar: Constraint | None) -> dict[str, Any] | None:
    """vLLM's field for what OpenAI's `response_format` cannot say."""
    if grammar is None or grammar.kind == "json":
        return None
    if grammar.kind == "regex":
        return {"regex": grammar.text}
    if grammar.kind == "choice":
        return {"choice": json.loads(grammar.text)}
    raise SwiftError("a remote server takes no grammar", where="response_format", next="leave out `tools`")


async def events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a server-sent event stream, up to `[DONE]`.

    Lines end at CR or LF alone: a line separator (U+2028) inside a JSON string is text.
    """
    rest = b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            data = line.removesuffix(b"\r").removeprefix(b"data:").strip()
            if data == b"[DONE]":
                return
            if line.startswith(b"data:") and data:
                yield _object(data)


def _object(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        event = None
    return event if isinstance(event, dict) else {"error": "the server sent an event that is no JSON object"}


def delta_of(request_id: str, choice: Mapping[str, Any]) -> Delta:
    """A piece of an answer."""
    reason = choice.get("finish_reason")
    finish = None if reason is None else FINISH.get(reason, "error")
    token_ids = tuple(choice.get("token_ids") or ())
    return Delta(
        request_id=request_id,
        index=choice.get("index", 0),
        text=choice.get("text") or "",
        token_ids=token_ids,
        logprobs=_logprobs(choice.get("logprobs"), token_ids),
        finish_reason=finish,
        error=f"the server finished with {reason!r}" if finish == "error" else None,
    )


def _logprobs(logprobs: Mapping[str, Any] | None, token_ids: tuple[int, ...]) -> tuple[TokenLogprob, ...]:
    """The log-probabilities of a completions choice. A token whose id the server does not tell has id -1."""
    if not logprobs:
        return ()
    tokens = logprobs["tokens"]
    ids = token_ids if len(token_ids) == len(tokens) else (-1,) * len(tokens)
    tops = logprobs.get("top_logprobs") or ({},) * len(tokens)
    return tuple(
        TokenLogprob(token, token_id, value, tuple((text, -1, top_value) for text, top_value in (top or {}).items()))
        for token, token_id, value, top in zip(tokens, ids, logprobs["token_logprobs"], tops, strict=True)
    )


def wire_messages(messages: Sequence[Message], media: Media | None = None) -> list[dict[str, Any]]:
    """OpenAI's messages. A tool turn names the call it answers: the calls of the turn before, in their order.

    Each tag in a text becomes a part with the next of the `media`, those without a tag stand before the first question.
    Raises SwiftError for tags and media that are not as many, for a file that is not there, and a list of frames.
    """
    parts = _Parts(messages, media or Media())
    wire: list[dict[str, Any]] = []
    unanswered: list[str] = []
    for message in messages:
        entry: dict[str, Any] = {"role": message.role, "content": parts.of(message)}
        if message.tool_calls:
            unanswered = [call.id or f"call_{len(wire)}_{i}" for i, call in enumerate(message.tool_calls)]
            entry["tool_calls"] = [
                {"id": id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for id, call in zip(unanswered, message.tool_calls, strict=True)
            ]
        elif message.role == "tool":
            entry["tool_call_id"] = unanswered.pop(0) if unanswered else f"call_{len(wire)}"
        wire.append(entry)
    return wire


class _Parts:
    """The media of a conversation, as its texts come to them."""

    def __init__(self, messages: Sequence[Message], media: Media):
        self._media = {MEDIA_TAGS[kind]: list(media.of(kind)) for kind in MEDIA_TAGS if media.of(kind)}
        texts = "".join(message.content for message in messages)
        self._before = ""
        for tag, sources in self._media.items():
            missing = len(sources) - texts.count(tag)
            if missing < 0:
                raise SwiftError(f"the text has {texts.count(tag)} {tag} and there are {len(sources)}")
            self._before += tag * missing

    def of(self, message: Message) -> str | list[dict[str, Any]]:
        """The content of the next message: its text, or parts where something is shown in it."""
        text = message.content
        if message.role == "user":
            text, self._before = self._before + text, ""
        if not any(tag in text for tag in self._media):
            return text
        pieces = re.split(f"({'|'.join(self._media)})", text)
        return [
            _part(piece, self._media[piece].pop(0)) if piece in self._media else {"type": "text", "text": piece}
            for piece in pieces
            if piece
        ]


def _part(tag: str, source: Any) -> dict[str, Any]:
    """`image_url`, `video_url` or `audio_url` with an address, or a file as a data URL."""
    if not isinstance(source, str):
        raise SwiftError("a video that is a list of frames has no form on the wire", next="send it as a file")
    if not source.startswith(("http://", "https://", "data:")):
        path = Path(source.removeprefix("file://"))
        kind = mimetypes.guess_type(path.name)[0] or f"{tag[1:-1]}/*"
        try:
            source = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
        except OSError as error:
            raise SwiftError(f"missing {tag[1:-1]}", where=str(path), why=error.strerror) from error
    name = f"{tag[1:-1]}_url"
    return {"type": name, name: {"url": source}}


def read_message(completion: Mapping[str, Any]) -> Message:
    """The message of a whole chat answer."""
    answer = completion["choices"][0]["message"]
    calls = [(call["function"], call.get("id")) for call in answer.get("tool_calls") or ()]
    return Message(
        role="assistant",
        content=answer.get("content") or "",
        reasoning=answer.get("reasoning_content"),
        tool_calls=tuple(ToolCall(function["name"], function["arguments"], id=id) for function, id in calls),
    )


def read_echo(choice: Mapping[str, Any], text: str) -> list[tuple[float, bool]]:
    """The log-probability of each token that the echoed `text` at the end of a completion needs, and whether none was
    likelier. Raises ValueError where the server tells something else."""
    logprobs, whole = choice["logprobs"], choice["text"]
    if not whole.endswith(text):
        raise ValueError("the text is not echoed")
    border = len(whole) - len(text)
    values, tops, starts = logprobs["token_logprobs"], logprobs["top_logprobs"], logprobs["text_offset"]
    if not len(values) == len(tops) == len(starts):
        raise ValueError("the lists differ in length")
    ends = [*starts[1:], len(whole)]
    told = [(value, top) for value, top, end in zip(values, tops, ends, strict=True) if end > border]
    if any(value is None for value, _ in told):
        raise ValueError("nothing stands before the text")
    return [(float(value), float(value) >= max((top or {}).values(), default=value)) for value, top in told]
