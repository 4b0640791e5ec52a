"""Objects of images in texts: `<ref-object>` becomes the name of a row's next object, `<bbox>` its box."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from swift.catalog.entries import MediaText
from swift.prompts.bad_row import BadRow
from swift.prompts.images import BadImage
from swift.prompts.messages import MEDIA_TAGS
from swift.prompts.types import Conversation
from swift.prompts.values import a_list, literal

REFERENCE, BOX = "<ref-object>", "<bbox>"
UNNAMED = "objects that its text has no tag for are left out"
BARE = "<ref-object> or <bbox> stands for no object: it is trained as it stands"
OUTSIDE = "a box reaches beyond its image"
REVERSED = "a box ends before it begins: its numbers are read as x1, y1, x2, y2, not as x, y, width, height"
TINY = (
    'a box of fractions is read as pixels, so that nothing is in it: "bbox_type": "norm_1" says that it counts images'
)
GRID = 999
"""The largest coordinate that is written: boxes are given in thousandths of the image's width and height."""
TYPES = ("real", "norm_1", "norm_1000", None)
"""What coordinates count: pixels, the whole image, thousandths of it; None writes them as they are."""
Box = list[int | float]


class BadGrounding(BadImage):
    """An object of a row that cannot be used."""

    key = "objects"


def objects(value: Any) -> tuple[dict[str, Any], ...]:
    """The objects of a row: a list of `{caption, bbox, bbox_type, image}` or `[caption, bbox]`, perhaps as JSON text.

    Releases after 2.5 write them as columns, `{ref, bbox, bbox_type, image_id}`. Raises BadRow.
    """
    listed = []
    value = literal(value, "objects", "a list")
    if isinstance(value, Mapping):
        items: list[Any] = [value] if "caption" in value else _rows(value)
    else:
        items = a_list(value, "objects")
    for number, item in enumerate(items):
        given = item
        if isinstance(item, list | tuple) and len(item) == 2:
            given = {"caption": item[0], "bbox": item[1], "bbox_type": None, "image": 0}
        if not isinstance(given, dict):
            raise BadRow("wrong type", key=f"objects[{number}]", expected="an object with a bbox", value=item)
        listed.append(given)
    return tuple(listed)


def _rows(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One object for each name and box; of unequal columns the rest has no name, or no box."""
    names, boxes, places = (a_list(columns.get(key), f"objects.{key}") for key in ("ref", "bbox", "image_id"))
    kind = columns.get("bbox_type") or "real"
    kind = {"norm1": "norm_1", "norm1000": "norm_1000", "none": None}.get(kind, kind)
    rows: list[dict[str, Any]] = []
    for number in range(max(len(names), len(boxes))):
        row: dict[str, Any] = {"bbox_type": kind, "image": places[number] if number < len(places) else 0}
        row |= {"caption": names[number]} if number < len(names) else {}
        row |= {"bbox": boxes[number]} if number < len(boxes) else {}
        rows.append(row)
    return rows


def grounded(
    conversation: Conversation,
    form: MediaText,
    size: Callable[[str], tuple[int, int]],
    box_size: Callable[[str], tuple[int, int]] | None = None,
) -> tuple[Conversation, tuple[str, ...]]:
    """The conversation with its objects in words, and remarks on objects that no tag names.

    `size` gives width and height of an image, and is asked only for boxes in pixels; `box_size` those that the model's
    boxes count in, else thousandths. Raises BadGrounding.
    """
    things = conversation.media.objects
    if not things:
        bare = any(tag in message.content for message in conversation.messages for tag in (REFERENCE, BOX))
        return conversation, (BARE,) if bare else ()
    scale = _Boxes(conversation.media.images, size, box_size)
    names, boxes = _texts(things, _caption, form), _texts(things, scale, form)
    used = {REFERENCE: 0, BOX: 0}

    def text(tag: re.Match[str]) -> str:
        used[tag[0]] += 1
        written = next(names if tag[0] == REFERENCE else boxes, None)
        if written is None:
            raise BadGrounding(f"the text has more {tag[0]} than the row has objects ({len(things)})")
        return written

    messages = [
        replace(message, content=re.sub(f"{REFERENCE}|{BOX}", text, message.content))
        for message in conversation.messages
    ]
    remarks = (UNNAMED,) if max(used.values()) < len(things) else ()
    return replace(conversation, messages=tuple(messages)), (*remarks, *scale.remarks)


def _texts(
    things: tuple[dict[str, Any], ...], text: Callable[[Mapping[str, Any], str, MediaText], str], form: MediaText
) -> Iterator[str]:
    return (text(thing, f"objects[{number}]", form) for number, thing in enumerate(things))


def _caption(thing: Mapping[str, Any], key: str, form: MediaText) -> str:
    name = thing.get("caption")
    if not isinstance(name, str):
        raise BadGrounding("wrong object", why=f"{key}.caption is no text: {name!r:.80}")
    if any(tag in name for tag in (*MEDIA_TAGS.values(), REFERENCE, BOX)):
        raise BadGrounding("wrong object", why=f"{key}.caption holds a tag: {name:.80}")
    return form.caption.replace("{{caption}}", name)


class _Boxes:
    """Writes the boxes of objects; coordinates become thousandths of the image they lie in, or pixels of its copy that
    the model is shown."""

    def __init__(
        self,
        images: tuple[str, ...],
        size: Callable[[str], tuple[int, int]],
        box_size: Callable[[str], tuple[int, int]] | None,
    ):
        self._images = images
        self._size, self._box_size = size, box_size
        self.remarks: dict[str, None] = {}
        """What is odd about them."""

    def _remark(self, remark: str, *, odd: bool) -> None:
        if odd:
            self.remarks[remark] = None

    def __call__(self, thing: Mapping[str, Any], key: str, form: MediaText) -> str:
        given, kind = thing.get("bbox"), thing.get("bbox_type", "real")
        boxes = given if isinstance(given, list | tuple) and given and isinstance(given[0], list | tuple) else [given]
        if kind not in TYPES:
            raise BadGrounding("wrong object", why=f"{key}.bbox_type is {kind!r}, not real, norm_1 or norm_1000")
        scaled = [self._scaled(_four(box, f"{key}.bbox"), kind, thing.get("image") or 0, key) for box in boxes]
        written = form.between_boxes.join(_filled(form.box, box) for box in scaled)
        return form.boxes.replace("{{boxes}}", written)

    def _scaled(self, box: Box, kind: str | None, number: Any, key: str) -> Box:
        self._remark(REVERSED, odd=box[2] < box[0] or box[3] < box[1])
        if not self._images or kind is None:
            return box
        fractions = any(isinstance(value, float) and not value.is_integer() for value in box)
        self._remark(TINY, odd=kind == "real" and fractions and max(box) <= 1)
        if kind == "norm_1000" and self._box_size is None:
            self._remark(OUTSIDE, odd=min(box) < 0 or max(box) > 1000)
            return box
        if not isinstance(number, int) or not 0 <= number < len(self._images):
            raise BadGrounding("wrong object", why=f"{key}.image is {number!r}, the row has {len(self._images)} images")
        image = self._images[number]
        width, height = {"norm_1": (1, 1), "norm_1000": (1000, 1000)}.get(kind) or self._size(image)
        shares = [value / side for value, side in zip(box, (width, height, width, height), strict=True)]
        self._remark(OUTSIDE, odd=not all(0 <= share <= 1 for share in shares))
        if self._box_size is None:
            return [int(share * GRID) for share in shares]
        pixels = self._box_size(image)
        return [round(share * side) for share, side in zip(shares, (*pixels, *pixels), strict=True)]


def _four(box: Any, key: str) -> Box:
    numbers = isinstance(box, list | tuple) and len(box) == 4
    if not numbers or not all(isinstance(value, int | float) and abs(value) < 2**31 for value in box):
        raise BadGrounding("wrong object", why=f"{key} is not four numbers: {box!r:.80}")
    return list(box)


def _filled(form: str, box: Box) -> str:
    for name, value in zip(("x1", "y1", "x2", "y2"), box, strict=True):
        form = form.replace(f"{{{{{name}}}}}", str(value))
    return form
