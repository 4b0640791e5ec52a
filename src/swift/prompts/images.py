"""Where images stand in a prompt: each `<image>` of a row becomes the text and the tokens that its family gives it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from swift.core.errors import SwiftError
from swift.prompts.messages import MEDIA_TAGS
from swift.prompts.types import Conversation, Example, Message, Segment

TAG = MEDIA_TAGS["images"]
UNTAGGED = "images that its text has no tag for stand before the first question"


class BadImage(SwiftError):
    """An image of a row that cannot be used; `what` says why in one line."""

    key = "images"
    """What of the row is at fault."""


class ImageTokens(Protocol):
    """What images are in the prompts of one model."""

    token: int
    """The id that stands for a piece of an image."""
    token_text: str
    facts: Mapping[str, Any]
    """Everything that decides what becomes of an image, as JSON has it."""

    def written(self, sources: Sequence[str]) -> list[str]:
        """What stands for each image of a row, `token_text` for each of its pieces. Raises BadImage for a bad one."""
        ...

    def size(self, source: str) -> tuple[int, int]:
        """Width and height of the image in pixels. Raises BadImage when it cannot be used."""
        ...

    def check(self, sources: Sequence[str]) -> None:
        """Raise BadImage for an image that cannot be decoded."""
        ...


def tagged(conversation: Conversation, tokens: ImageTokens) -> Conversation:
    """The conversation with a tag for every image: those that the text has no tag for stand before the first question.

    Raises BadImage for more tags than images, for videos and audio, and for the token in a text.
    """
    media = conversation.media
    for message in conversation.messages:
        refuse_token(message, tokens)
    for kind, links in (("videos", media.videos), ("audios", media.audios)):
        if links:
            raise BadImage(f"the row has {kind}, which this model does not take here")
    return tag_first(conversation, TAG, "images", len(media.images))


def tag_first(conversation: Conversation, tag: str, kind: str, count: int) -> Conversation:
    """The conversation with `count` tags: those that its text lacks stand before the first question.

    Raises BadImage where the text has more.
    """
    number = tags(conversation, tag)
    if number == count:
        return conversation
    if number > count:
        raise BadImage(f"the text has {number} {tag} and the row {count} {kind}")
    messages = list(conversation.messages)
    first = next((place for place, message in enumerate(messages) if message.role == "user"), None)
    if first is None:
        first = int(bool(messages) and messages[0].role == "system")
        messages.insert(first, Message("user", ""))
    messages[first] = replace(messages[first], content=tag * (count - number) + messages[first].content)
    return replace(conversation, messages=tuple(messages))


def tags(conversation: Conversation, tag: str = TAG) -> int:
    """How many places its texts name for media."""
    return sum(message.content.count(tag) for message in conversation.messages)


def placed(example: Example, images: Sequence[str], tokens: ImageTokens, *, whole: bool) -> Example:
    """The example with image tokens in place of its tags; its images are the first of `images`.

    `whole` keeps them text, for a tokenizer that is given an example in one piece. Raises BadImage.
    """
    with_tags = [segment for segment in example.segments if isinstance(segment.content, str) and TAG in segment.content]
    count = sum(str(segment.content).count(TAG) for segment in with_tags)
    written = iter(tokens.written(images[:count]))
    segments: list[Segment] = []
    for segment in example.segments:
        if segment not in with_tags:
            segments.append(segment)
            continue
        first, *rest = str(segment.content).split(TAG)
        own = segment.weight
        # An image inside an answer is seen and not trained, and the answer goes on behind it.
        texts = [(first, own), *(part for text in rest for part in ((next(written), 0.0), (text, own)))]
        pieces = [(piece, weight) for text, weight in texts for piece in ([text] if whole else _pieces(text, tokens))]
        segments += [
            replace(segment, content=piece, weight=weight, inside_turn=segment.inside_turn or weight < own)
            for piece, weight in joined(pieces)
        ]
    return replace(example, segments=segments, images=tuple(images[:count]))


def _pieces(text: str, tokens: ImageTokens) -> list[str | tuple[int, ...]]:
    """The text with ids in place of the tokens of images."""
    return [
        (tokens.token,) * (len(part) // len(tokens.token_text)) if number % 2 else part
        for number, part in enumerate(re.split(f"((?:{re.escape(tokens.token_text)})+)", text))
    ]


def joined(pieces: Sequence[tuple[str | tuple[int, ...], float]]) -> list[tuple[str | tuple[int, ...], float]]:
    """Without empty pieces, and texts of one weight that touch as one, as the tokenizer must see them."""
    whole: list[tuple[str | tuple[int, ...], float]] = []
    for piece, weight in pieces:
        before, its_weight = whole[-1] if whole else ((), 0.0)
        if isinstance(piece, str) and isinstance(before, str) and weight == its_weight:
            whole[-1] = (before + piece, weight)
        elif piece:
            whole.append((piece, weight))
    return whole


def refuse_token(message: Message, tokens: ImageTokens) -> None:
    """Raise BadImage where a text holds the very token that stands for images (and is not the tag)."""
    if tokens.token_text != TAG and tokens.token_text in message.content:
        raise BadImage(f"the text has {tokens.token_text}, which stands for a piece of an image")
