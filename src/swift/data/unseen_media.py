"""Media that a row has and the model is not shown, and settings of single media: what is said of them."""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Collection, Mapping
from typing import Any

from swift.params.flag_synonyms import MEDIA_SETTINGS
from swift.prompts.messages import MEDIA_TAGS
from swift.prompts.types import Media

PART = re.compile(r"\.content\[\]\.(\w+)$")
"""A key of a part of a turn."""
LONGEST = 1024
"""Characters of a path or an address."""
UNSEEN, FOR_ALL = "which the model is not shown", "it is one for all media of a run"


def unseen(row: Mapping[str, Any], unused: Collection[str], shown: Media) -> list[str]:
    """A remark on each unused key that seems to name media of a kind that the row shows none of, or that sets how one
    medium is shown."""
    remarks = []
    for key in sorted(unused):
        kind, part = _kind(row.get(key)), PART.search(key)
        if kind is not None and not shown.of(kind):
            columns = json.dumps({key: kind}, ensure_ascii=False)
            remarks.append(f"{key} looks like {kind}, {UNSEEN}: --columns '{columns}' if it should be")
        elif part is not None and part[1] in MEDIA_SETTINGS:
            remarks.append(f"{key} is not read, as {FOR_ALL}: --model_kwargs '{{\"{part[1]}\": …}}'")
    return remarks


def is_about_media(remark: str) -> bool:
    """Whether it is one of these, which are no small matter."""
    return UNSEEN in remark or FOR_ALL in remark


def _kind(value: Any) -> str | None:
    """The kind of media that a value names, or holds: by the first of a list."""
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, Mapping) and not {"path", "bytes", "url"}.isdisjoint(first):
        first = next((first[name] for name in ("path", "url") if isinstance(first.get(name), str)), None)
    if not isinstance(first, str):
        return None
    named = first[5:] if first.startswith("data:") else _type_of(first)
    kind = f"{named.partition('/')[0]}s"
    return kind if kind in MEDIA_TAGS else None


def _type_of(link: str) -> str:
    return "" if len(link) > LONGEST or "\n" in link else mimetypes.guess_type(link.partition("?")[0])[0] or ""
