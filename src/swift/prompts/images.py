"""Where media stand in a prompt: each `<image>`, `<video>`, `<audio>` becomes the text that its family gives it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

from swift.catalog.entries import MediaText
from swift.core.errors import SwiftError
from swift.prompts.messages import MEDIA_TAGS
from swift.prompts.types import Conversation, Example, Media, Message, Segment

UNTAGGED = "images that its text has no tag for stand before the first question"
OTHER_TAG = "tags of other tools (`<image 1>`, `<|image|>`) are text here: its media stand before the first question"
_OTHER_TAG = re.compile(
    r"<\|?(?:image|img|video|audio)(?:[ _-]?\d+)?\s?/?\|?>|<(?:start_of_image|ImageHere)>|\[(?:image|img)\]",
    re.IGNORECASE,
)
IN_ANSWER = "media stand in its last answer, and are not shown where that is to be given"


class BadMedium(SwiftError):
    """Something that a row shows and that cannot be used; `what` says why in one line."""

    key: ClassVar[str]
    """What of the row is at fault."""
    noun: ClassVar[str]


class BadImage(BadMedium):
    """An image, or images together."""

    key, noun = "images", "image"


class BadVideo(BadMedium):
    """A video."""

    key, noun = "videos", "video"


class BadAudio(BadMedium):
    """A sound."""

    key, noun = "audios", "audio"


@dataclass(frozen=True)
class Clip:
    """What a video is before its frames are decoded."""

    width: int
    height: int
    """In pixels, upright."""
    frames: int
    fps: float
    """Frames a second."""
    listed: bool = False
    """Whether the row names its frames one by one, so that all are shown."""


class MediaTokens(Protocol):
    """What media are in the prompts of one model."""

    tokens: Mapping[str, int]
    """The text and the id of every token that stands for a piece of something shown."""
    kinds: tuple[str, ...]
    """What the model takes, of images, videos and audios."""
    boxes_in_pixels: bool
    """Whether boxes count pixels of an image as it is shown to the model, and not thousandths of it."""
    stands_first: bool
    """Whether an image, of which each row has one, stands before all of a prompt wherever its text names it."""
    facts: Mapping[str, Any]
    """Everything that decides what becomes of media, as JSON has it."""

    def written(self, media: Media, form: MediaText) -> Mapping[str, Sequence[str]]:
        """What stands for each medium of each kind, with a token for each of its pieces; `form` is the template's.

        Raises BadMedium for a bad one.
        """
        ...

    def size(self, source: str) -> tuple[int, int]:
        """Width and height of an image in pixels. Raises BadImage when it cannot be used."""
        ...

    def box_size(self, source: str) -> tuple[int, int]:
        """Width and height of an image as it is shown to the model. Raises BadImage."""
        ...

    def counts(self, media: Media) -> Mapping[int, int]:
        """How often each of the tokens, by its id, stands in a prompt that shows these media. Raises BadMedium."""
        ...

    def check(self, media: Media) -> None:
        """Raise BadMedium for what cannot be decoded."""
        ...


def tagged(conversation: Conversation, tokens: MediaTokens) -> Conversation:
    """The conversation with a tag for every medium: those that the text has no tag for stand before the first question.

    Raises BadMedium for more tags than media, for media that the model does not take, and for a token in a text.
    """
    for message in conversation.messages:
        refuse_token(message, tokens)
    for kind, fault in FAULTS.items():
        links = conversation.media.of(kind)
        if kind in tokens.kinds:
            conversation = tag_first(conversation, MEDIA_TAGS[kind], kind, len(links))
        elif links:
            raise fault(f"the row has {kind}, which this model does not take here")
    return conversation


def without_answer(conversation: Conversation) -> Conversation:
    """The conversation up to the turn that is to be answered, without the media that stand in the answer."""
    asked = _asked(conversation)
    return replace(conversation, messages=asked, media=_shown_by(asked, conversation))


def _asked(conversation: Conversation) -> tuple[Message, ...]:
    messages = conversation.messages
    while messages and messages[-1].role == "assistant":
        messages = messages[:-1]
    return messages


def _shown_by(asked: Sequence[Message], conversation: Conversation) -> Media:
    """What tags stand for is in their order, and what has none stands before them: the last media are the answer's."""
    counts = {}
    for kind, tag in MEDIA_TAGS.items():
        before, all_of = (sum(one.content.count(tag) for one in part) for part in (asked, conversation.messages))
        given = len(conversation.media.of(kind))
        counts[kind] = given if given < all_of else given - (all_of - before)
    return replace(conversation.media.first(counts), objects=conversation.media.objects)


def untagged(conversation: Conversation, tokens: MediaTokens) -> Conversation:
    """The conversation without tags, for a model whose one image stands before everything.

    Raises BadMedium for no image or several, and likewise as `tagged` does.
    """
    tagged(conversation, tokens)
    if len(conversation.media.images) != 1:
        raise BadImage(f"the row has {len(conversation.media.images) or 'no'} images, and the model reads one")
    tag = MEDIA_TAGS["images"]
    messages = tuple(
        replace(one, content=one.content.replace(tag, "").strip()) if tag in one.content else one
        for one in conversation.messages
    )
    return replace(conversation, messages=messages)


FAULTS: Mapping[str, type[BadMedium]] = {"videos": BadVideo, "images": BadImage, "audios": BadAudio}
"""In this order media without tags are put before the text, each before the ones that are there, as in 2.5."""


def tag_first(conversation: Conversation, tag: str, kind: str, count: int) -> Conversation:
    """The conversation with `count` tags: those that its text lacks stand before the first question.

    Raises BadImage where the text has more.
    """
    number = tags(conversation, tag)
    if number == count:
        return conversation
    if number > count:
        raise FAULTS[kind](f"the text has {number} {tag} and the row {count} {kind}")
    messages = list(conversation.messages)
    first = next((place for place, message in enumerate(messages) if message.role == "user"), None)
    if first is None:
        first = int(bool(messages) and messages[0].role == "system")
        messages.insert(first, Message("user", ""))
    messages[first] = replace(messages[first], content=tag * (count - number) + messages[first].content)
    return replace(conversation, messages=tuple(messages))


def tags(conversation: Conversation, tag: str = MEDIA_TAGS["images"]) -> int:
    """How many places its texts name for media."""
    return sum(message.content.count(tag) for message in conversation.messages)


def odd_tags(conversation: Conversation) -> tuple[str, ...]:
    """Remarks on media that a text has no tag for, though it has others, and on those that stand in an answer."""
    media, remarks = conversation.media, ()
    if 0 < tags(conversation) < len(media.images):
        remarks += (UNTAGGED,)
    bare = [kind for kind, tag in MEDIA_TAGS.items() if tags(conversation, tag) < len(media.of(kind))]
    if bare and any(_has_other_tag(one.content) for one in conversation.messages if one.role != "assistant"):
        remarks += (OTHER_TAG,)
    asked = without_answer(conversation)
    if asked.messages and asked.media != media:  # a text without a question is shown all of them
        remarks += (IN_ANSWER,)
    return remarks


def _has_other_tag(text: str) -> bool:
    return any(found not in MEDIA_TAGS.values() for found in _OTHER_TAG.findall(text))


def in_front(example: Example, media: Media, tokens: MediaTokens, form: MediaText, *, whole: bool) -> Example:
    """The example behind the tokens of its image; parameters as in `placed`. Raises BadMedium."""
    tag = Segment(MEDIA_TAGS["images"])
    return placed(replace(example, segments=[tag, *example.segments]), media, tokens, form, whole=whole)


def placed(example: Example, media: Media, tokens: MediaTokens, form: MediaText, *, whole: bool) -> Example:
    """The example with tokens in place of its tags; its media are the first of `media`.

    `whole` keeps them text, for a tokenizer that is given an example in one piece. Raises BadMedium.
    """
    tag = re.compile("|".join(MEDIA_TAGS[kind] for kind in tokens.kinds))
    with_tags = [one for one in example.segments if isinstance(one.content, str) and tag.search(one.content)]
    names = [name for segment in with_tags for name in tag.findall(str(segment.content))]
    numbers = Counter(names)
    shown = media.first({kind: numbers[MEDIA_TAGS[kind]] for kind in tokens.kinds})
    if shown.images and shown.videos:
        shown = replace(shown, order=tuple(kind for name in names for kind in tokens.kinds if MEDIA_TAGS[kind] == name))
    given = tokens.written(shown, form)
    written = {MEDIA_TAGS[kind]: iter(texts) for kind, texts in given.items()}
    segments: list[Segment] = []
    for segment in example.segments:
        if segment not in with_tags:
            segments.append(segment)
            continue
        first, *rest = tag.split(str(segment.content))
        own = segment.weight
        # What is shown inside an answer is seen and not trained, and the answer goes on behind it.
        between = [next(written[name]) for name in tag.findall(str(segment.content))]
        behind = zip(between, rest, strict=True)
        texts = [(first, own), *(part for medium, text in behind for part in ((medium, 0.0), (text, own)))]
        pieces = [(piece, weight) for text, weight in texts for piece in ([text] if whole else _pieces(text, tokens))]
        segments += [
            replace(segment, content=piece, weight=weight, inside_turn=segment.inside_turn or weight < own)
            for piece, weight in joined(pieces)
        ]
    return replace(example, segments=segments, media=shown)


def _pieces(text: str, tokens: MediaTokens) -> list[str | tuple[int, ...]]:
    """The text with ids in place of the tokens of media."""
    runs = "|".join(f"(?:{re.escape(name)})+" for name in tokens.tokens)
    return [
        _ids(part, tokens.tokens) if number % 2 else part for number, part in enumerate(re.split(f"({runs})", text))
    ]


def _ids(run: str, tokens: Mapping[str, int]) -> tuple[int, ...]:
    """The ids of a text that repeats one token."""
    name = next(name for name in tokens if run.startswith(name))
    return (tokens[name],) * (len(run) // len(name))


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


def refuse_token(message: Message, tokens: MediaTokens) -> None:
    """Raise BadMedium where a text holds a token that stands for pieces of media (and is not the tag)."""
    for name in tokens.tokens:
        if name not in MEDIA_TAGS.values() and name in message.content:
            raise BadImage(f"the text has {name}, which stands for a piece of an image, a video or a sound")
