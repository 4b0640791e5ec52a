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
    number, count = tags(conversation), len(media.images)
    if number == count:
        return conversation
    first = next((i for i, message in enumerate(conversation.messages) if message.role == "user"), None)
    if number > count or first is None:
        raise BadImage(f"the text has {number} {TAG} and the row {count} images")
    messages = list(conversation.messages)
    messages[first] = replace(messages[first], content=TAG * (count - number) + messages[first].content)
    return replace(conversation, messages=tuple(messages))


def tags(conversation: Conversation) -> int:
    """How many places its texts name for images."""
    return sum(message.content.count(TAG) for message in conversation.messages)


def placed(example: Example, images: Sequence[str], tokens: ImageTokens, *, whole: bool) -> Example:
    """The example with image tokens in place of its tags; its images are the first of `images`.

    `whole` keeps them text, for a tokenizer that is given an example in one piece. Raises BadImage.
    """
    with_tags = [segment for segment in example.segments if isinstance(segment.content, str) and TAG in segment.content]
    if any(segment.weight > 0 for segment in with_tags):
        raise BadImage("an image stands in an answer that is trained")
    count = sum(str(segment.content).count(TAG) for segment in with_tags)
    written = iter(tokens.written(images[:count]))
    segments: list[Segment] = []
    for segment in example.segments:
        if segment not in with_tags:
            segments.append(segment)
            continue
        first, *rest = str(segment.content).split(TAG)
        texts = [first, *(part for text in rest for part in (next(written), text))]
        pieces = ["".join(texts)] if whole else _joined([p for text in texts for p in _pieces(text, tokens)])
        segments += [replace(segment, content=piece) for piece in pieces]
    return replace(example, segments=segments, images=tuple(images[:count]))


def _pieces(text: str, tokens: ImageTokens) -> list[str | tuple[int, ...]]:
    """The text with ids in place of the tokens of images."""
    return [
        (tokens.token,) * (len(part) // len(tokens.token_text)) if number % 2 else part
        for number, part in enumerate(re.split(f"((?:{re.escape(tokens.token_text)})+)", text))
    ]


def _joined(pieces: Sequence[str | tuple[int, ...]]) -> list[str | tuple[int, ...]]:
    """Without empty pieces, and texts that touch as one, as the tokenizer must see them."""
    joined: list[str | tuple[int, ...]] = []
    for piece in pieces:
        if joined and isinstance(piece, str) and isinstance(joined[-1], str):
            joined[-1] += piece
        elif piece:
            joined.append(piece)
    return joined


def refuse_token(message: Message, tokens: ImageTokens) -> None:
    """Raise BadImage where a text holds the very token that stands for images (and is not the tag)."""
    if tokens.token_text != TAG and tokens.token_text in message.content:
        raise BadImage(f"the text has {tokens.token_text}, which stands for a piece of an image")
