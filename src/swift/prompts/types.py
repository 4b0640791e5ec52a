"""What a row means, whatever format it came in: conversations, preferences, and what encoding makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Origin:
    """Where a row stands in the user's data: a file (or dataset id) and the line or row number, counted from 1."""

    source: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line}"


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool: its name and its arguments as JSON text."""

    name: str
    arguments: str
    id: str | None = None


@dataclass(frozen=True)
class Message:
    """One turn.

    `weight` None follows the role (1 for assistant, 0 otherwise); `reasoning` is its thinking, if kept apart.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    weight: float | None = None
    tool_call_id: str | None = None
    """The call whose result this is, where the row says so, and (`name`) its function."""
    name: str | None = None


@dataclass(frozen=True)
class Media:
    """Paths, URLs or data URIs of what a multimodal row carries, in the order of their tags in the text."""

    images: tuple[str, ...] = ()
    videos: tuple[str | tuple[str, ...], ...] = ()
    """Those that are a list of frames are a tuple of images."""
    audios: tuple[str, ...] = ()
    objects: tuple[dict[str, Any], ...] = ()
    order: tuple[str, ...] = ()
    """In a prompt that shows both images and videos, which of them each place is for."""

    def of(self, kind: str) -> tuple[str | tuple[str, ...], ...]:
        """Its images, videos or audios."""
        return {"images": self.images, "videos": self.videos, "audios": self.audios}[kind]

    def first(self, counts: Mapping[str, int]) -> Media:
        """So many of each kind, and no objects."""
        return Media(
            self.images[: counts.get("images", 0)],
            self.videos[: counts.get("videos", 0)],
            self.audios[: counts.get("audios", 0)],
        )

    @classmethod
    def of_kinds(cls, shown: Sequence[Sequence[Any]]) -> Media:
        """What a prompt shows, in its order: kind and source of each."""
        of = {kind: tuple(source for own, source in shown if own == kind) for kind in ("images", "videos", "audios")}
        mixed = bool(of["images"] and of["videos"])
        return cls(**of, order=tuple(kind for kind, _ in shown if kind != "audios") if mixed else ())

    @property
    def any(self) -> bool:
        """Whether there is something to be seen or heard."""
        return bool(self.images or self.videos or self.audios)


@dataclass(frozen=True)
class Conversation:
    """A row to train on or to answer.

    `messages` may open with a system turn: an empty one means "no system", none at all means "the template's default".
    A pre-training text is one assistant message. A conversation to answer ends with a user or tool turn.
    """

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    media: Media = field(default_factory=Media)
    origin: Origin | None = None


@dataclass(frozen=True)
class Preference:
    """The same prompt with a better and a worse end. KTO rows have one end (`chosen`) and a `label`."""

    chosen: Conversation
    rejected: Conversation | None = None
    label: bool | None = None


Row = Conversation | Preference

IGNORED = -100
"""The label of a token that is not trained; what PyTorch and transformers skip too."""


@dataclass(frozen=True)
class Segment:
    """A piece of the rendered prompt: text or token ids. `weight` 0 is context, above 0 is trained."""

    content: str | tuple[int, ...]
    weight: float = 0.0
    inside_turn: bool = False
    """Context in the middle of an answer, such as a tool's result: the answer does not end before it."""
    end_weight: float | None = None
    """Of the context behind an answer: the weight of the answer's end in a weighted row; None leaves it unweighted."""


@dataclass(frozen=True)
class Example:
    """One training example, or a prompt, as segments, and remarks on what its template made of the row's text."""

    segments: list[Segment]
    rewrites: tuple[str, ...] = ()
    media: Media = field(default_factory=Media)
    """What stands in the segments, in its order."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of one training example or prompt, all lists of equal length.

    `labels` holds `IGNORED` where nothing is trained. `loss_scale` is None when every trained token counts the same.
    """

    input_ids: list[int]
    labels: list[int]
    loss_scale: list[float] | None = None
    media: Media = field(default_factory=Media)
    truncated: int = 0
    """Tokens that truncation cut off."""
    rewrites: tuple[str, ...] = ()
    """Remarks on what a chat template made of the row's text."""
