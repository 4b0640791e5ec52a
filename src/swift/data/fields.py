"""Readers of single fields of a row: text, message content, tools, media. Each says what it expected."""

from __future__ import annotations

import ast
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swift.data.bad_row import BadRow
from swift.data.parquet_media import LEFT_OUT
from swift.prompts.types import Media, ToolCall

MEDIA_TAGS = {"images": "<image>", "videos": "<video>", "audios": "<audio>"}
MEDIA_KEYS = {"images": ("images", "image"), "videos": ("videos", "video"), "audios": ("audios", "audio")}
MEDIA_NAMES = frozenset(("objects",)).union(*MEDIA_KEYS.values())
"""Every key of a row that has to do with media."""
REMOTE = ("http://", "https://", "data:", "s3://", "oss://", LEFT_OUT)


def text(value: Any, key: str, *, empty: bool = False) -> str:
    """Text that says something (or nothing, when `empty` is allowed). Raises BadRow for all else."""
    if isinstance(value, str):
        if empty or (value and not value.isspace()):
            return value
        raise BadRow("empty value", key=key, expected="some text", value=value)
    if value is None:
        raise BadRow("empty value", key=key, expected="some text", value=None)
    raise BadRow("wrong type", key=key, expected="text", value=value)


def optional_text(row: Mapping[str, Any], key: str) -> str | None:
    """The text under `key`, None when it is absent or null."""
    value = row.get(key)
    return None if value is None else text(value, key, empty=True)


def literal(value: Any, key: str, expected: str) -> Any:
    """A list or dict that may have been written as JSON or Python text inside one cell."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except ValueError:
        pass
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise BadRow("wrong type", key=key, expected=expected, value=value) from None


def a_list(value: Any, key: str) -> list[Any]:
    """A list, perhaps written as text. Raises BadRow for anything else; null counts as empty."""
    value = literal(value, key, "a list")
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise BadRow("wrong type", key=key, expected="a list", value=value)
    return list(value)


def tools(row: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """The row's tool declarations: a list of objects, or the same as JSON text."""
    given = a_list(row.get("tools"), "tools")
    for number, tool in enumerate(given):
        if not isinstance(tool, dict):
            raise BadRow("wrong type", key=f"tools[{number}]", expected="an object with a name", value=tool)
    return tuple(given)


def tool_calls(value: Any, key: str) -> tuple[ToolCall, ...]:
    """Calls as OpenAI writes them (`function: {name, arguments}`), or flat (`{name, arguments}`), one or a list."""
    given = literal(value, key, "JSON with name and arguments")
    if given is None:
        return ()
    calls = given if isinstance(given, list) else [given]
    return tuple(_tool_call(call, f"{key}[{number}]") for number, call in enumerate(calls))


def _tool_call(call: Any, key: str) -> ToolCall:
    if not isinstance(call, dict):
        raise BadRow("wrong type", key=key, expected="an object with name and arguments", value=call)
    inner = call.get("function")
    function = inner if isinstance(inner, dict) else call
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise BadRow("wrong type", key=f"{key}.name", expected="the name of a tool", value=name)
    arguments = function.get("arguments", function.get("parameters"))
    if arguments is None:
        arguments = "{}"
    elif not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    identity = call.get("id")
    return ToolCall(name, arguments, identity if isinstance(identity, str) else None)


def content(value: Any, key: str, found: dict[str, list[str]], *, empty: bool) -> str:
    """Message content: text, or OpenAI content parts, whose media go to `found` and leave their tag in the text."""
    if not isinstance(value, list):
        return text(value, key, empty=empty)
    pieces = []
    for number, part in enumerate(value):
        where = f"{key}[{number}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, str):
            pieces.append(part)
        elif kind in ("text", "input_text"):
            pieces.append(text(part.get("text"), f"{where}.text", empty=True))
        elif kind in _PARTS:
            medium, names = _PARTS[kind]
            link = next((part[name] for name in names if part.get(name) is not None), None)
            link = link.get("url") if isinstance(link, dict) else link
            found.setdefault(medium, []).append(text(link, f"{where}.{names[0]}"))
            pieces.append(MEDIA_TAGS[medium])
        else:
            raise BadRow("wrong type", key=where, expected="a text, image, video or audio part", value=part)
    return text("".join(pieces), key, empty=empty)


_PARTS = {
    "image_url": ("images", ("image_url", "url")),
    "image": ("images", ("image", "url", "path")),
    "video_url": ("videos", ("video_url", "url")),
    "video": ("videos", ("video", "url", "path")),
    "audio_url": ("audios", ("audio_url", "url")),
    "audio": ("audios", ("audio", "url", "path")),
}


def media(row: Mapping[str, Any], found: Mapping[str, list[str]], folder: Path | None, *, there: bool = True) -> Media:
    """Everything the row shows besides text. Paths are looked up from the working directory, then beside the data file.

    Raises BadRow when a local file does not exist, unless they need not be `there`.
    """
    if not found and not _has_media(row):
        return Media()
    listed = {kind: tuple(_media_files(row, kind, found.get(kind, []), folder, there)) for kind in MEDIA_TAGS}
    objects = a_list(row.get("objects"), "objects")
    for number, item in enumerate(objects):
        if not isinstance(item, dict):
            raise BadRow("wrong type", key=f"objects[{number}]", expected="an object with a bbox", value=item)
    return Media(listed["images"], listed["videos"], listed["audios"], tuple(objects))


def _has_media(row: Mapping[str, Any]) -> bool:
    return not MEDIA_NAMES.isdisjoint(row)


def _media_files(row: Mapping[str, Any], kind: str, found: list[str], folder: Path | None, there: bool) -> list[str]:
    links: list[tuple[str, Any]] = [(kind, link) for link in found]
    for key in MEDIA_KEYS[kind]:
        value = row.get(key)
        if isinstance(value, str) and not value.lstrip().startswith("["):
            value = [value] if value else []
        elif isinstance(value, dict):
            value = [value]
        links += [(f"{key}[{number}]", link) for number, link in enumerate(a_list(value, key))]
    return [_located(link, key, folder, there) for key, link in links]


def _located(link: Any, key: str, folder: Path | None, there: bool) -> str:
    if isinstance(link, dict):
        link = link.get("path") or link.get("url")
    link = text(link, key)
    if not there or link.startswith(REMOTE) or os.path.isfile(link):
        return link
    if folder is not None and (folder / link).is_file():
        return str(folder / link)
    raise BadRow("missing file", key=key, expected="a file that exists", value=link)


def label(row: Mapping[str, Any], *, needed: bool) -> bool | None:
    """The KTO label: true or false (1, 0 and the words will do). Other values are none unless one is needed."""
    value = row.get("label")
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1) and needed:
        return bool(value)
    if isinstance(value, str) and needed and value.strip() in ("0", "1"):
        return value.strip() == "1"
    if isinstance(value, str) and value.strip().lower() in _TRUTH:
        return _TRUTH[value.strip().lower()]
    if needed or (isinstance(value, float) and math.isnan(value)):
        reason = "missing key" if "label" not in row else "wrong type"
        raise BadRow(reason, key="label", expected="true or false", value=value)
    return None


_TRUTH = {"true": True, "false": False}
