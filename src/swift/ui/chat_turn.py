"""One turn of a chat on the page: from what the page holds to a prompt, and the answer as it grows."""

from __future__ import annotations

import mimetypes
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from swift.core.errors import SwiftError
from swift.engines.base import Request, SamplingParams
from swift.engines.sync_engine import SyncEngine
from swift.prompts.encode import Encoder
from swift.prompts.messages import MEDIA_TAGS
from swift.prompts.types import Conversation, Media, Message

SHOW_SECONDS = 0.08
"""A browser draws a growing answer no faster; more updates would only queue up."""

Turn = dict[str, Any]
"""A message as gradio's Chatbot holds it: `role` and `content`, a text or a list of parts."""


@dataclass(frozen=True)
class Controls:
    """What the side panel says."""

    system: str = ""
    adapter: str | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 2048


def text_of(content: Any) -> str:
    """The text of a message, whether it is held whole or in parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    return "".join(part if isinstance(part, str) else part.get("text") or "" for part in parts)


def files_of(content: Any) -> list[str]:
    """The paths of the files in a message."""
    parts = content if isinstance(content, list) else [content]
    return [part["file"]["path"] for part in parts if isinstance(part, dict) and part.get("type") == "file"]


def conversation(history: Sequence[Turn], system: str) -> Conversation:
    """What the page holds, as a conversation to answer. Media stand before the text that was sent with them.

    Raises SwiftError for a file that is no image, video or sound by its name, and for media without a question.
    """
    messages = [Message("system", system)] if system.strip() else []
    images: list[str] = []
    videos: list[str] = []
    audios: list[str] = []
    media = {"images": images, "videos": videos, "audios": audios}
    carried = ""
    for turn in history:
        if carried and turn["role"] != "user":  # files that were sent without a word
            messages.append(Message("user", carried))
            carried = ""
        for file in files_of(turn["content"]):
            kind = kind_of(file)
            media[kind].append(file)
            carried += MEDIA_TAGS[kind]
        text = text_of(turn["content"])
        if not text and turn["role"] == "user":
            continue
        messages.append(Message(turn["role"], carried + text))
        carried = ""
    if carried:
        messages.append(Message("user", carried))
    return Conversation(tuple(messages), media=Media(tuple(images), tuple(videos), tuple(audios)))


def unanswered(history: Sequence[Turn]) -> tuple[list[Turn], dict[str, Any]]:
    """The talk up to its last answer, and what was asked since: its text, and paths of its files."""
    end = next((at + 1 for at in reversed(range(len(history))) if history[at]["role"] == "assistant"), 0)
    asked = [turn["content"] for turn in history[end:]]
    texts, files = filter(None, map(text_of, asked)), [file for content in asked for file in files_of(content)]
    return list(history[:end]), {"text": "\n".join(texts), "files": files}


def kind_of(file: str) -> str:
    """Whether a file is one of images, videos or audios, by its name. Raises SwiftError for anything else."""
    form = (mimetypes.guess_type(file)[0] or "").partition("/")[0]
    if f"{form}s" not in MEDIA_TAGS:
        raise SwiftError(f"{Path(file).name} is no image, video or sound", next="remove it, and send another")
    return f"{form}s"


@dataclass
class Measured:
    """How long an answer became, and how fast it was written."""

    tokens: int = 0
    seconds: float = 0.0
    """From the first token to the last."""

    @property
    def speed(self) -> float | None:
        """Tokens a second, the first left out: it waits for the prompt. None where there is nothing to measure."""
        return (self.tokens - 1) / self.seconds if self.tokens > 1 and self.seconds > 0 else None


class Talker:
    """Answers for the page, on one engine. `sampling_of(room)` is how the command's flags sample.

    `encoders` are those of adapters that were trained with another system text, by name.
    """

    def __init__(
        self,
        engine: SyncEngine,
        encoder: Encoder,
        sampling_of: Callable[[int], SamplingParams],
        encoders: Mapping[str | None, Encoder] = MappingProxyType({}),
    ):
        self.engine = engine
        self.encoder = encoder
        self.sampling_of = sampling_of
        self.encoders = encoders

    def answer(
        self, history: Sequence[Turn], controls: Controls, stop: threading.Event, measured: Measured
    ) -> Iterator[str]:
        """The answer so far, again and again, until it is whole or `stop` is set. Raises SwiftError."""
        talk = conversation(history, controls.system)
        prompt = self.encoders.get(controls.adapter, self.encoder).encode(talk, inference=True)[-1]
        room = self.engine.engine.max_model_len - len(prompt.input_ids)
        if room < 1:
            raise SwiftError("the conversation is longer than the model's context", next="begin a new chat")
        sampling = replace(
            self.sampling_of(room),
            max_tokens=min(controls.max_tokens, room),
            temperature=controls.temperature,
            top_p=controls.top_p,
        )
        request = Request(
            id=f"page-{uuid.uuid4().hex}",
            prompt_ids=tuple(prompt.input_ids),
            sampling=sampling,
            adapter=controls.adapter,
            media=prompt.media,
        )
        text, shown, due, began = "", "", 0.0, 0.0
        with closing(self.engine.stream(request)) as deltas:  # type: ignore[type-var]  # it is a generator
            for delta in deltas:
                if delta.finish_reason == "error":
                    raise SwiftError(f"the engine failed: {delta.error}")
                text += delta.text
                if delta.token_ids:
                    began = began or time.monotonic()
                    measured.tokens += len(delta.token_ids)
                    measured.seconds = time.monotonic() - began
                if stop.is_set():
                    break
                if text != shown and time.monotonic() >= due:
                    yield text
                    shown, due = text, time.monotonic() + SHOW_SECONDS
        if text != shown:
            yield text
