"""Links to media, as rows and requests write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import unquote

from swift.prompts.messages import MEDIA_TAGS
from swift.prompts.types import Message

SCHEMES = ("http", "https", "data")


def plain_link(link: str) -> str:
    """The link with its scheme in small letters and no space around it; `file://` is the path that it stands for."""
    scheme, colon, rest = link.strip().partition(":")
    if scheme.lower() == "file" and rest.startswith("//"):
        return unquote(rest.removeprefix("//").removeprefix("localhost"))
    return f"{scheme.lower()}:{rest}" if colon and scheme.lower() in SCHEMES else link


IN_TEXT = {"images": ("<img>", "</img>"), "videos": ("<video>", "</video>"), "audios": ("<audio>", "</audio>")}
"""How Qwen-VL and Qwen-Audio name a file in a question, which the 2.5 release reads for every model."""


def out_of_text(messages: Sequence[Message]) -> tuple[tuple[Message, ...], dict[str, list[str]]]:
    """The messages with a tag where a question names a file, `<img>a.png</img>`, and the files by kind."""
    files: dict[str, list[str]] = {}
    tagged = []
    for message in messages:
        for kind in IN_TEXT if message.role == "user" else ():
            text, links = _parted(message.content, kind)
            if links:
                files.setdefault(kind, []).extend(links)
                message = replace(message, content=text)
        tagged.append(message)
    return tuple(tagged), files


def named_in(text: str, kind: str) -> int:
    """How many files of a kind a question names in its text."""
    return len(_parted(text, kind)[1])


def _parted(text: str, kind: str) -> tuple[str, list[str]]:
    """A text with tags in place of files, and the files, in one pass: a request may hold any text."""
    opening, closing = IN_TEXT[kind]
    parts: list[str] = []
    files: list[str] = []
    *before, rest = text.split(closing)
    for part in before:
        line = part.rfind("\n") + 1
        start = part.rfind(opening, line)
        if 0 <= start < len(part) - len(opening):
            files.append(part[start + len(opening) :])
            parts += [part[:start], MEDIA_TAGS[kind]]
        else:
            parts += [part, closing]
    return "".join((*parts, rest)), files
