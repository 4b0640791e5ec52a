"""The remote backend: a server that speaks the OpenAI API, anywhere, behind the Engine protocol.

`RemoteEngine.stream` sends the prompt as token ids to `/v1/completions`: the server renders nothing, so the prompt is
the one that training saw. vLLM and this project's own server take token ids. A server that has only
`/v1/chat/completions` renders the prompt itself, which this project cannot check; that is a door of its own,
`RemoteEngine.chat`, and `stream` never falls back to it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from swift.core.errors import SwiftError
from swift.engines.base import NOTHING_SHOWN, Delta, NoLogProbs, Request, SamplingParams, TokenLogprob
from swift.engines.openai_wire import (
    chat_body,
    completion_body,
    delta_of,
    events,
    read_echo,
    read_message,
    wire_messages,
)
from swift.prompts.types import Conversation, Media, Message

UNBOUNDED = 2**31 - 1
"""`max_model_len` of a server that does not tell it: its own check is the one that counts."""
BUSY = (429, 503)
STARTING = (502, 503, 504)
"""What a proxy says while the server behind it still loads its model."""


class Refused(SwiftError):
    """The server does not do what the request asks for."""


class NotUp(SwiftError):
    """The server cannot be reached, or is not ready to answer; it may be later."""


@dataclass(frozen=True, kw_only=True)
class RemoteSettings:
    """Where the server is and how patient to be with it."""

    url: str
    """With or without the closing `/v1`."""
    api_key: str | None = None
    model: str | None = None
    """The name the server knows the model by; None takes the first it lists."""
    max_model_len: int | None = None
    """None takes what the server tells."""
    connect_timeout: float = 10.0
    """Seconds."""
    timeout: float = 600.0
    """Seconds of silence after which an answer counts as lost."""
    retries: int = 4
    """How often a request that the server turned away as too busy (429, 503) is sent again."""
    extensions: bool = True
    """Whether the server takes vLLM's fields beside OpenAI's. OpenAI's own refuses a field it does not know."""


class RemoteEngine:
    """An OpenAI server as an Engine. The other models it serves, its LoRAs among them, are the adapters."""

    reader: None = None

    def __init__(
        self,
        settings: RemoteSettings,
        client: httpx.AsyncClient,
        tokenizer: Any,
        model: str,
        max_model_len: int,
        adapters: tuple[str, ...],
    ):
        self.tokenizer = tokenizer
        self.max_model_len = max_model_len
        self.adapters = adapters
        self.model = model
        self._settings = settings
        self._client = client
        self._running = 0

    @classmethod
    async def start(cls, settings: RemoteSettings, tokenizer: Any = None) -> RemoteEngine:
        """Reach the server and settle on a model. Raises SwiftError for a bad address, key or model name.

        The tokenizer is the one that made the prompts; `chat` needs none.
        """
        client = httpx.AsyncClient(
            base_url=_base_url(settings.url),
            headers={"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {},
            timeout=httpx.Timeout(settings.timeout, connect=settings.connect_timeout, pool=None),
            limits=httpx.Limits(max_connections=None),
        )
        try:
            listed = await _models(client, settings.url)
            model = _choose(settings, listed)
        except SwiftError:
            await client.aclose()
            raise
        length = settings.max_model_len or listed[model].get("max_model_len") or UNBOUNDED
        return cls(settings, client, tokenizer, model, length, tuple(name for name in listed if name != model))

    async def stream(self, request: Request) -> AsyncIterator[Delta]:
        """Deltas as the server sends them. Their token ids are empty where the server does not give any.

        Raises SwiftError for a request the server refuses; an answer that breaks off ends in a Delta with "error".
        """
        if request.media.any:
            raise SwiftError(
                "images, videos and sounds are not sent beside token ids, which a server would not expand",
                where=self._settings.url,
                next="ask in messages",
            )
        body = {
            **completion_body(request.sampling, extensions=self._settings.extensions),
            "model": self._served(request.adapter),
            "prompt": list(request.prompt_ids),
            "stream": True,
        }
        unfinished = set(range(request.sampling.n))
        error = "the server ended the stream before the answer was finished"
        self._running += 1
        try:
            async with self._answering("/completions", body) as response:
                async for event in events(response):
                    if "error" in event:
                        error = _message(event)
                        break
                    for choice in event.get("choices", ()):
                        delta = delta_of(request.id, choice)
                        if delta.finish_reason is not None:
                            unfinished.discard(delta.index)
                        yield delta
        except httpx.HTTPError as problem:
            error = _reason(problem)
        finally:
            self._running -= 1
        for index in sorted(unfinished):
            yield Delta(request_id=request.id, index=index, finish_reason="error", error=error)

    async def chat(
        self, conversation: Conversation, sampling: SamplingParams, *, adapter: str | None = None
    ) -> Message:
        """The server's own answer to a conversation, which it renders with its own template. Raises SwiftError."""
        body = {
            **chat_body(sampling, extensions=self._settings.extensions),
            "model": self._served(adapter),
            "messages": wire_messages(conversation.messages, conversation.media),
        }
        if conversation.tools:
            body["tools"] = [
                tool if "function" in tool else {"type": "function", "function": tool} for tool in conversation.tools
            ]
        try:
            return read_message(await self._posted("/chat/completions", body))
        except (LookupError, TypeError, AttributeError):
            raise SwiftError("the server's answer is no chat completion", where=self._settings.url) from None

    async def complete(self, prompt: str, sampling: SamplingParams) -> str:
        """What the server writes behind a text, whose tokens it makes itself. Raises SwiftError."""
        body = {**completion_body(sampling, extensions=False), "model": self.model, "prompt": prompt}
        completion = await self._posted("/completions", body)
        try:
            return str(completion["choices"][0]["text"])
        except (LookupError, TypeError):
            raise SwiftError("the server's answer is no completion", where=self._settings.url) from None

    async def log_probs_of_text(self, prompt: str, text: str) -> list[tuple[float, bool]]:
        """The log-probability of each token of a text behind a prompt, and whether it is the likeliest.

        The server makes the tokens, of both together; one that reaches over the border counts for the text.
        Raises SwiftError.
        """
        body = {
            "model": self.model,
            "prompt": prompt + text,
            "max_tokens": 0,
            "echo": True,
            "logprobs": 1,
            "temperature": 0,
        }
        completion = await self._posted("/completions", body)
        try:
            return read_echo(completion["choices"][0], text)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise Refused(
                "the server does not tell how likely a text is",
                where=self._settings.url,
                why="its completions have no log-probabilities of the prompt (echo)",
            ) from None

    async def first_tokens(self, conversation: Conversation, most: int) -> dict[str, float]:
        """The likeliest first tokens of an answer, as texts, with their log-probabilities. Raises SwiftError."""
        body = {
            "model": self.model,
            "messages": wire_messages(conversation.messages, conversation.media),
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": most,
        }
        completion = await self._posted("/chat/completions", body)
        try:
            (first,) = completion["choices"][0]["logprobs"]["content"]
            return {each["token"]: float(each["logprob"]) for each in first["top_logprobs"]}
        except (LookupError, TypeError, ValueError):
            raise Refused("the server tells no log-probabilities", where=self._settings.url) from None

    async def _posted(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that comes back. Raises SwiftError."""
        self._running += 1
        try:
            async with self._answering(path, body) as response:
                return json.loads(await response.aread())
        except httpx.HTTPError as problem:
            raise SwiftError(f"no answer: {_reason(problem)}", where=self._settings.url) from None
        except ValueError:
            raise SwiftError("the server's answer is no JSON", where=self._settings.url) from None
        finally:
            self._running -= 1

    async def log_probs(
        self,
        prompt_ids: tuple[int, ...],
        continuations: Sequence[tuple[int, ...]],
        adapter: str | None = None,
        top: int = 0,
        media: Media = NOTHING_SHOWN,
    ) -> list[list[TokenLogprob]]:
        """Refused: raises NoLogProbs."""
        raise NoLogProbs("a remote server")

    async def add_adapter(self, name: str, folder: str) -> None:
        """Have the server load the LoRA at `folder`, a path on its machine. vLLM does so when it was told it may."""
        try:
            response = await self._client.post("load_lora_adapter", json={"lora_name": name, "lora_path": folder})
        except httpx.HTTPError as problem:
            raise SwiftError(f"no adapter is loaded: {_reason(problem)}", where=self._settings.url) from None
        if response.is_error:
            raise SwiftError(
                f"the server refused to load the adapter `{name}`: {_given(response)}",
                where=self._settings.url,
                next="start the server with the adapter, or vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1",
            )
        self.adapters = (*self.adapters, name)

    def statistics(self) -> dict[str, float]:
        """What is known from here: the answers under way."""
        return {"running": float(self._running), "waiting": 0.0, "kv_used": 0.0}

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _served(self, adapter: str | None) -> str:
        if adapter is None:
            return self.model
        if adapter not in self.adapters:
            raise SwiftError(
                f"the server has no adapter `{adapter}`",
                where=self._settings.url,
                next=f"it serves {', '.join(self.adapters)}" if self.adapters else "it serves none",
            )
        return adapter

    @asynccontextmanager
    async def _answering(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[httpx.Response]:
        """An open answer: sent again while the server is too busy, refused as a SwiftError, closed on the way out."""
        for attempt in range(self._settings.retries + 1):
            async with self._client.stream("POST", path.lstrip("/"), json=body) as response:
                if response.is_success:
                    yield response
                    return
                await response.aread()
            if response.status_code not in BUSY or attempt == self._settings.retries:
                raise _refusal(self._settings.url, path, response)
            await asyncio.sleep(_pause(response, attempt))


def _base_url(url: str) -> str:
    """`http://host:8000`, `http://host:8000/v1/` and `…/v1/chat/completions` are one server.

    Raises SwiftError for what is no web address.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise SwiftError(f"`{url}` is not the address of a server", next="write it like http://127.0.0.1:8000/v1")
    trimmed = url.rstrip("/")
    for path in ("/chat/completions", "/completions", "/models"):  # what people copy from a request
        trimmed = trimmed.removesuffix(path)
    return trimmed if trimmed.endswith("/v1") else f"{trimmed}/v1"


async def _models(client: httpx.AsyncClient, url: str) -> dict[str, dict[str, Any]]:
    """The models the server lists, by name, in its order."""
    try:
        response = await client.get("models")
    except httpx.HTTPError as problem:
        raise NotUp("the server cannot be reached", where=url, why=_reason(problem), next="is it running?") from None
    if response.status_code in STARTING:
        raise NotUp("the server is not ready", where=url, why=f"{response.status_code} {_given(response)}")
    if response.is_error:
        raise _refusal(url, "/models", response)
    try:
        return {entry["id"]: entry for entry in response.json()["data"]}
    except (ValueError, KeyError, TypeError):
        raise SwiftError("this is no OpenAI server", where=url, why="it lists no models in /v1/models") from None


def _choose(settings: RemoteSettings, listed: Mapping[str, Any]) -> str:
    if settings.model is None and listed:
        return next(iter(listed))
    if settings.model is None or settings.model not in listed:
        wanted = "no model" if settings.model is None else f"no model `{settings.model}`"
        names = ", ".join(list(listed)[:8]) or "none"
        raise SwiftError(f"the server has {wanted}", where=settings.url, next=f"it lists {names}")
    return settings.model


def _refusal(url: str, path: str, response: httpx.Response) -> SwiftError:
    given = _given(response)
    if response.status_code in (401, 403):
        return SwiftError("the server does not take the key", where=url, why=given, next="give its key: --eval_token")
    if response.status_code in BUSY:
        return SwiftError("the server is too busy", where=url, why=given, next="try again later")
    where, why = f"{url} {path}", f"{response.status_code} {given}"
    if response.is_server_error:
        return SwiftError("the server fails", where=where, why=why)
    if path == "/completions":
        return Refused(
            "the server refuses the request",
            where=where,
            why=why,
            next="prompts go out as token ids; a server that takes only messages cannot serve as an engine",
        )
    return Refused("the server refuses the request", where=where, why=why)


def _given(response: httpx.Response) -> str:
    """What the server says of its refusal, on one line."""
    try:
        body = response.json()
    except ValueError:
        return response.text.strip().split("\n")[0][:200] or response.reason_phrase
    return _message(body)


def _message(body: Any) -> str:
    """The text of an error envelope: `{"error": {"message": …}}`, `{"error": …}`, `{"message": …}`, `{"detail": …}`."""
    if isinstance(body, dict):
        inside = next((body[key] for key in ("error", "message", "detail") if key in body), body)
        return _message(inside) if isinstance(inside, dict) and inside is not body else str(inside)
    return str(body)


def _reason(problem: httpx.HTTPError) -> str:
    return str(problem) or type(problem).__name__


def _pause(response: httpx.Response, attempt: int) -> float:
    """Seconds until the next try: what the server asks for, at most a minute, else 1, 2, 4, …"""
    delay = response.headers.get("retry-after", "")
    return min(float(delay), 60.0) if delay.isdecimal() else 2.0**attempt
