"""Media of requests: from where they may come, how large they may be, and what is said of those that are refused."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from swift.catalog.entries import MediaText
from swift.core.optional_imports import MissingPackage
from swift.data.image_fetch import Bounds, fetched
from swift.data.image_files import ImageReader
from swift.data.sound_files import count_of
from swift.data.video_files import clip_of
from swift.plan.serve import MediaPolicy
from swift.prompts.image_header import base64_of, bytes_of, upright_size
from swift.prompts.images import FAULTS, BadAudio, BadImage, BadMedium, BadVideo, MediaTokens
from swift.prompts.media_links import named_in, plain_link
from swift.prompts.messages import MEDIA_PARTS, MEDIA_TAGS
from swift.prompts.types import Media
from swift.serving.errors import ApiError
from swift.serving.schema import ChatMessage, ChatRequest

BODY_OF_MEDIA = 64 * 2**20
"""What media may add to a request."""


@dataclass(frozen=True)
class Limit:
    """What a request may hold of one kind."""

    count: int
    bytes: int
    """Of one, as it comes."""
    seconds: float
    """For fetching one."""


LIMITS = {
    "images": Limit(32, 20 * 2**20, 10.0),
    "videos": Limit(4, 128 * 2**20, 30.0),
    "audios": Limit(8, 32 * 2**20, 20.0),
}
FETCHING_SECONDS = 60.0
"""For all that a request names at addresses: each of many may take nearly the time of one."""
MAX_PIXELS = 64_000_000
"""Of one image or frame: decoded it takes three bytes for each."""
MAX_VIDEO_PIXELS = 2 * 10**10
"""Of all frames of a video, five minutes of 1920x1080, as those before one that is shown are decoded too."""

MAX_SECONDS = 1800
"""Of one sound."""


def places(body: ChatRequest, kind: str) -> list[str]:
    """Where in the request each of its media of a kind stands, in the order they are read in. Raises ApiError."""
    parts = [
        f"messages[{number}].content[{at}].{part.type}"
        for number, message in enumerate(body.messages)
        for at, part in enumerate(message.content if isinstance(message.content, list) else [])
        if MEDIA_PARTS.get(part.type) == kind
    ]
    beside = {"images": body.images, "videos": body.videos, "audios": body.audios}[kind]
    named = [
        f"messages[{number}].content"
        for number, message in enumerate(body.messages)
        for _ in range(_named(message, kind) if message.role == "user" else 0)
    ]
    ways = [way for way in (parts, named, [f"{kind}[{at}]" for at in range(len(beside or []))]) if way]
    if len(ways) > 1:
        message = f"The {kind} stand in content parts, in the text or in `{kind}`: one of them, for the sake of order."
        raise ApiError(400, message, param=kind)
    return ways[0] if ways else []


def _named(message: ChatMessage, kind: str) -> int:
    """How many media its text names, as `<img>a.png</img>`."""
    content = message.content or ""
    texts = [content] if isinstance(content, str) else [part.text or "" for part in content]
    return sum(named_in(text, kind) for text in texts)


async def admitted(media: Media, body: ChatRequest, policy: MediaPolicy) -> Media:
    """Every medium as a data URL or a file that may be read; what has to be fetched is fetched. Raises ApiError.

    Addresses are waited for on the event loop: one that is slow keeps no thread from other requests.
    """
    until = time.monotonic() + FETCHING_SECONDS
    kinds = {
        kind: await _all_of(kind, media.of(kind), places(body, kind), policy, until)
        for kind in MEDIA_TAGS
        if media.of(kind)
    }
    return Media(kinds.get("images", ()), kinds.get("videos", ()), kinds.get("audios", ()), media.objects)


def at_addresses(media: Media) -> bool:
    """Whether something has to be fetched."""
    sources = [source for kind in MEDIA_TAGS for source in media.of(kind)]
    return any(_remote(one) for source in sources for one in ([source] if isinstance(source, str) else source))


def _remote(source: str) -> bool:
    return plain_link(source).startswith(("http://", "https://"))


async def _all_of(
    kind: str, sources: Sequence[Any], where: Sequence[str], policy: MediaPolicy, until: float
) -> tuple[Any, ...]:
    most = LIMITS[kind].count
    if len(sources) > most:
        raise ApiError(400, f"The request has {len(sources)} {kind}; at most {most} are taken.", param=where[most])
    admitted: list[Any] = []
    for source, field in zip(sources, where, strict=True):
        if isinstance(source, tuple):  # a video as the list of its frames
            frames = [f"{field}[{at}]" for at in range(len(source))]
            admitted.append(await _all_of("images", source, frames, policy, until))
        else:
            admitted.append(await _one(kind, plain_link(source), field, policy, until))
    return tuple(admitted)


async def _one(kind: str, source: str, field: str, policy: MediaPolicy, until: float) -> str:
    body, limit = None, LIMITS[kind]
    try:
        if _remote(source):
            seconds = round(max(0.1, min(limit.seconds, until - time.monotonic())), 1)
            body = await fetched(source, Bounds(limit.bytes, seconds, policy.private_urls), FAULTS[kind])
        return await asyncio.to_thread(_checked, kind, source, body, field, policy)
    except MissingPackage as error:
        raise ApiError(501, f"{error.what}.".capitalize(), param=field) from error
    except BadMedium as error:
        raise refusal(error, field) from error


def _checked(kind: str, source: str, body: bytes | None, field: str, policy: MediaPolicy) -> str:
    """The medium as a data URL or a file, looked at as far as its head; `body` is what was fetched. Raises BadMedium,
    and ApiError for a file."""
    limit, fault = LIMITS[kind], FAULTS[kind]
    if body is None and source.startswith("data:"):
        if len(source) > limit.bytes * 3:  # a byte takes up to three characters
            raise fault(f"{fault.noun} too large", why=f"more than {limit.bytes} bytes")
        body = bytes_of(source, fault)
    elif body is None and (body := _bare_base64(kind, source)) is None:
        return _file(kind, source, field, policy)
    _check(kind, body)
    return "data:;base64," + base64.b64encode(body).decode()


def refusal(fault: BadMedium, field: str) -> ApiError:
    """What a client is told of a medium that cannot be used."""
    said = ": ".join(filter(None, (fault.what, fault.why)))
    return ApiError(400, f"{said[:1].upper()}{said[1:].rstrip('.')}.", param=field)


def blamed(fault: BadMedium, media: Media, body: ChatRequest, tokens: MediaTokens | None) -> str:
    """The field of the medium that an encoder found at fault, `messages` where it is about several together."""
    for source, field in zip(media.of(fault.key), places(body, fault.key), strict=False):
        alone = replace(Media(), **{fault.key: (source,)})
        try:
            if tokens is not None:
                tokens.written(alone, MediaText())
        except BadMedium:
            return field
    return "messages"


def _bare_base64(kind: str, source: str) -> bytes | None:
    """Clients of the 2.5 release send the base64 of a file and nothing around it; None for anything else."""
    try:
        body = base64_of(source)
        _CHECKS[kind](body)
    except (binascii.Error, ValueError, BadMedium):
        return None
    return body


def _check(kind: str, body: bytes) -> None:
    if len(body) > LIMITS[kind].bytes:
        fault = FAULTS[kind]
        raise fault(f"{fault.noun} too large", why=f"{len(body)} bytes, at most {LIMITS[kind].bytes} are taken")
    _CHECKS[kind](body)


def _check_image(body: bytes) -> None:
    width, height = upright_size(io.BytesIO(body))
    if width * height > MAX_PIXELS:
        raise BadImage("image too large", why=f"{width}x{height} pixels, at most {MAX_PIXELS} are taken")


def _check_video(body: bytes) -> None:
    clip = clip_of(io.BytesIO(body), "")
    pixels = clip.width * clip.height
    if pixels > MAX_PIXELS or pixels * clip.frames > MAX_VIDEO_PIXELS:
        why = f"{clip.frames} frames of {clip.width}x{clip.height} pixels, at most {MAX_VIDEO_PIXELS} pixels are taken"
        raise BadVideo("video too large", why=why)


def _check_sound(body: bytes) -> None:
    seconds = count_of(io.BytesIO(body), "", 1)
    if seconds > MAX_SECONDS:
        raise BadAudio("audio too large", why=f"{seconds} s, at most {MAX_SECONDS} are taken")


_CHECKS = {"images": _check_image, "videos": _check_video, "audios": _check_sound}


def _file(kind: str, source: str, field: str, policy: MediaPolicy) -> str:
    """The path of a file below the folder that the server was started with; no other file is even looked for."""
    if policy.folder is None:
        message = f"This server takes {kind} from http(s) addresses and data URLs, not from files of its own machine."
        raise ApiError(400, message, param=field)
    folder = policy.folder.resolve()
    absent = ApiError(400, f"There is no such file in the folder this server takes {kind} from.", param=field)
    try:
        path = (folder / source).resolve()
        there = path.is_relative_to(folder) and path.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, links that go in a circle
        raise absent from None
    if not there:
        raise absent
    if path.stat().st_size > LIMITS[kind].bytes:
        raise ApiError(400, f"The file has more than {LIMITS[kind].bytes} bytes.", param=field)
    _check(kind, path.read_bytes())
    if kind == "images":
        ImageReader()(str(path))  # a head that looks whole may have no pixels behind it
    return str(path)


def refuse_others(media: Mapping[str, Sequence[Any]], body: ChatRequest, takes: Sequence[str]) -> None:
    """Raise ApiError for media of a kind that the model does not take."""
    for kind in MEDIA_TAGS:
        if media[kind] and kind not in takes:
            taken = " and ".join(("text", *takes))
            raise ApiError(400, f"This model takes {taken} only, no {kind}.", param=(places(body, kind) or [kind])[0])
