"""Readers of single fields of a row: its media and its label. Each says what it expected."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swift.data.parquet_media import LEFT_OUT
from swift.prompts.bad_row import BadRow
from swift.prompts.grounding import objects
from swift.prompts.media_links import plain_link
from swift.prompts.messages import MEDIA_TAGS, Beside
from swift.prompts.types import Media
from swift.prompts.values import a_list, text

MEDIA_KEYS = {"images": ("images", "image"), "videos": ("videos", "video"), "audios": ("audios", "audio")}
MEDIA_NAMES = frozenset(("objects",)).union(*MEDIA_KEYS.values())
"""Every key of a row that has to do with media."""
LABELS = ("label", "kto_tag")
"""Names of the KTO label, ours and that of LLaMA-Factory."""
BASE64 = re.compile(r"[A-Za-z0-9+/\s]+=*\s*")
"""What the 2.5 release took for the content of a file, where no file has that name."""
LONGEST_NAME = 255
"""Of a file on this machine, which a picture in base64 is never shorter than."""
REMOTE = ("http://", "https://", "data:", "s3://", "oss://", LEFT_OUT)


def media(row: Mapping[str, Any], tagged: Mapping[str, list[Any]], folder: Path | None, *, there: bool = True) -> Media:
    """Everything the row shows besides text; `tagged` is what stands in its turns already. Paths are looked up from the
    working directory, then beside the data file.

    Raises BadRow when a local file does not exist, unless they need not be `there`.
    """
    if not tagged and not _has_media(row):
        return Media()
    listed = {kind: tuple(_media_files(row, kind, tagged.get(kind, []), folder, there)) for kind in MEDIA_TAGS}
    return Media(listed["images"], listed["videos"], listed["audios"], objects(row.get("objects")))


def refuse_both(media: Media, in_text: Mapping[str, list[str]]) -> None:
    """Raise BadRow for media of one kind beside the text and in it: nobody knows in which order they are meant."""
    for kind, links in in_text.items():
        if media.of(kind):
            raise BadRow(f"{kind} in the text and beside it", key=kind, expected="either", value=links[0])


def _has_media(row: Mapping[str, Any]) -> bool:
    return not MEDIA_NAMES.isdisjoint(row)


def _media_files(row: Mapping[str, Any], kind: str, tagged: list[Any], folder: Path | None, there: bool) -> list[Any]:
    """The links of one kind; a video may be a list of its frames."""
    links: list[tuple[str, Any]] = []
    for key in MEDIA_KEYS[kind]:
        value = row.get(key)
        if isinstance(value, str) and not value.lstrip().startswith("["):
            value = [value] if value else []
        elif isinstance(value, dict):
            value = [value]
        links += [(f"{key}[{number}]", link) for number, link in enumerate(a_list(value, key))]
    links = _together(tagged, links, kind) if tagged else [each for each in links if not _is_empty(each[1])]
    return [
        tuple(_located(frame, f"{key}[{number}]", folder, there) for number, frame in enumerate(link))
        if kind == "videos" and isinstance(link, list)
        else _located(link, key, folder, there)
        for key, link in links
    ]


def _together(tagged: list[Any], column: list[tuple[str, Any]], kind: str) -> list[tuple[str, Any]]:
    """What stands in the turns, with the links of the column where a part of a turn only stands for one of them.

    Raises BadRow where the column has fewer, or where both have links of their own and nobody knows which are meant.
    """
    links: list[tuple[str, Any]] = []
    left, place = {number: each for number, each in enumerate(column) if not _is_empty(each[1])}, 0
    for link in tagged:
        if not isinstance(link, Beside):
            links.append((kind, link))
            continue
        place = place if link.number is None else link.number
        if place not in range(len(column)):
            raise BadRow(f"missing {kind}", key=kind, expected=f"{place + 1} of them for the turns", value=len(column))
        links.append(column[place])
        left.pop(place, None)
        place += 1
    rest = list(left.values())
    own = [link for link in tagged if not isinstance(link, Beside)]
    if own and rest and [link for _, link in rest] != own:
        raise BadRow(f"{kind} in the turns and beside them", key=rest[0][0], expected="either", value=rest[0][1])
    return links if own else [*links, *rest]


def _is_empty(link: Any) -> bool:
    """Whether a place of a column has nothing in it, as tables leave it where other rows have more."""
    return link in (None, "") or (isinstance(link, dict) and not any(link.values()))


_NAMES = ("path", "url", "bytes", "image", "video", "audio")
"""Where a medium is, in the objects that libraries write for it."""


def _located(link: Any, key: str, folder: Path | None, there: bool) -> str:
    if isinstance(link, dict):
        given, link = link, next((link[name] for name in _NAMES if link.get(name)), None)
        if link is None:
            raise BadRow("wrong type", key=key, expected="a path, url or bytes in it", value=given)
    link = plain_link(text(link, key))
    if not there or link.startswith(REMOTE) or os.path.isfile(link):
        return link
    for name in (link, link.strip(), os.path.expanduser(link.strip())):
        if os.path.isfile(name):
            return name
        if folder is not None and os.path.isfile(folder / name):
            return str(folder / name)
    if len(link) > LONGEST_NAME and BASE64.fullmatch(link):
        return f"data:;base64,{link}"
    raise BadRow("missing file", key=key, expected="a file that exists", value=link)


def label(row: Mapping[str, Any], *, needed: bool) -> bool | None:
    """The KTO label: true or false (1, 0 and the words will do). Other values are none unless one is needed."""
    key = next((key for key in LABELS if row.get(key) is not None), LABELS[0])
    value = row.get(key)
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1) and needed:
        return bool(value)
    if isinstance(value, str) and needed and value.strip() in ("0", "1"):
        return value.strip() == "1"
    if isinstance(value, str) and value.strip().lower() in _TRUTH:
        return _TRUTH[value.strip().lower()]
    if needed or (isinstance(value, float) and math.isnan(value)):
        reason = "missing key" if key not in row else "wrong type"
        raise BadRow(reason, key=key, expected="true or false", value=value)
    return None


_TRUTH = {"true": True, "false": False}
