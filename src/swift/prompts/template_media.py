"""Media in a prompt by the template alone, where no processor of a model counts their tokens."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from swift.catalog.entries import MediaText
from swift.prompts.images import BadImage, joined, tag_first
from swift.prompts.messages import MEDIA_TAGS
from swift.prompts.types import Conversation, Example, Media, Segment

KINDS = {"<image>": "images", "<video>": "videos", "<audio>": "audios"}
_TAG = re.compile("|".join(KINDS))
_SLOT = re.compile(r"\{\{(number|path|id:-?\d+)\}\}")


def tagged_by_template(conversation: Conversation, form: MediaText) -> Conversation:
    """The conversation with a tag for every medium. Raises BadImage for more tags than media."""
    media = conversation.media
    if form.max_images is not None and len(media.images) > form.max_images:
        raise BadImage(f"the row has {len(media.images)} images, the template takes {form.max_images}")
    if not form.untagged:
        return conversation
    for kind in ("videos", "images", "audios"):
        links = {"videos": media.videos, "images": media.images, "audios": media.audios}[kind]
        if links and form.one_a_turn:
            conversation = _one_a_turn(conversation, MEDIA_TAGS[kind], links)
        elif links:
            count = sum(link != "" for link in links)
            conversation = tag_first(conversation, MEDIA_TAGS[kind], kind, count)
    whole = [tuple(filter(None, links)) for links in (media.images, media.videos, media.audios)]
    return replace(conversation, media=replace(media, images=whole[0], videos=whole[1], audios=whole[2]))


def one_a_turn(conversation: Conversation, form: MediaText) -> Conversation:
    """The conversation with a tag in each turn, for a template that has one medium a turn, where no text has any.

    Raises BadImage where there are several turns and not as many media.
    """
    if not form.one_a_turn or sum(message.role == "user" for message in conversation.messages) < 2:
        return conversation
    for kind, tag in MEDIA_TAGS.items():
        links = conversation.media.of(kind)
        if links and not any(tag in message.content for message in conversation.messages):
            conversation = _one_a_turn(conversation, tag, links)
    return conversation


def _one_a_turn(conversation: Conversation, tag: str, links: Sequence[object]) -> Conversation:
    """Each question has at most one medium; a turn without one has an empty address in the row's list."""
    messages = list(conversation.messages)
    questions = [number for number, message in enumerate(messages) if message.role == "user"]
    if len(questions) != len(links):
        raise BadImage(f"the template takes one medium a turn: {len(questions)} turns, {len(links)} media")
    ends = [*questions[1:], len(messages)]
    for question, end, link in zip(questions, ends, links, strict=True):
        count = sum(message.content.count(tag) for message in messages[question:end])
        if count > bool(link):
            raise BadImage(f"a turn has {count} {tag} and {int(bool(link))} media")
        if link and not count:
            messages[question] = replace(messages[question], content=tag + messages[question].content)
    return replace(conversation, messages=tuple(messages))


def written(example: Example, media: Media, form: MediaText) -> Example:
    """The example with what the template writes in place of each tag. Raises BadImage for media it does not take."""
    texts = {"<image>": form.image, "<video>": form.video, "<audio>": form.audio}
    links = {"<image>": media.images, "<video>": media.videos, "<audio>": media.audios}
    numbers: Counter[str] = Counter()
    segments: list[Segment] = []
    for segment in example.segments:
        if not isinstance(segment.content, str) or not _TAG.search(segment.content):
            segments.append(segment)
            continue
        pieces: list[tuple[str | tuple[int, ...], float]] = []
        between = itertools.chain(_TAG.finditer(segment.content), [None])
        for text, tag in zip(_TAG.split(segment.content), between, strict=True):
            pieces.append((text, segment.weight))
            if tag is None:
                continue
            form_of, number = texts[tag[0]], numbers[tag[0]]
            if form_of is None:
                raise BadImage(f"the template takes no {KINDS[tag[0]]}")
            path = links[tag[0]][number] if number < len(links[tag[0]]) else ""
            pieces += [(piece, 0.0) for piece in _pieces(form_of, number + 1, path)]
            numbers[tag[0]] += 1
        segments += [
            replace(segment, content=content, weight=weight, inside_turn=segment.inside_turn or weight < segment.weight)
            for content, weight in joined(pieces)
        ]
    return replace(example, segments=segments)


def _pieces(form: str, number: int, path: str) -> Iterator[str | tuple[int, ...]]:
    for place, part in enumerate(_SLOT.split(form)):
        if place % 2 == 0:
            yield part
        elif part.startswith("id:"):
            yield (int(part[3:]),)
        else:
            yield str(number) if part == "number" else path
