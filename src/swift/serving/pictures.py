"""Images of requests: from where they may come, how large they may be, and what is said of those that are refused."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from swift.data.image_fetch import Bounds, fetch
from swift.plan.serve import PicturePolicy
from swift.prompts.image_header import upright_size
from swift.prompts.images import BadImage
from swift.serving.errors import ApiError
from swift.serving.schema import ChatRequest

MAX_IMAGES = 32
"""In one request."""
MAX_BYTES = 20 * 2**20
"""Of one image as it comes."""
MAX_PIXELS = 64_000_000
"""Of one image: decoded it takes three bytes for each."""
SECONDS = 10.0
"""For fetching one image."""
BODY_OF_IMAGES = 64 * 2**20
"""What images may add to a request."""


def places(body: ChatRequest) -> list[str]:
    """Where in the request each of its images stands, in the order in which they are read. Raises ApiError."""
    parts = [
        f"messages[{number}].content[{at}].{part.type}"
        for number, message in enumerate(body.messages)
        for at, part in enumerate(message.content if isinstance(message.content, list) else [])
        if part.type in ("image_url", "image")
    ]
    if parts and body.images:
        message = "Images stand in content parts or in `images`, not in both: their order would be unclear."
        raise ApiError(400, message, param="images")
    return parts or [f"images[{at}]" for at in range(len(body.images or []))]


def admitted(sources: Sequence[str], where: Sequence[str], policy: PicturePolicy) -> tuple[str, ...]:
    """Every image as a data URL or a file that may be read; what has to be fetched is fetched.

    `where` names the fields of the request. Raises ApiError.
    """
    if len(sources) > MAX_IMAGES:
        message = f"The request has {len(sources)} images; at most {MAX_IMAGES} are taken."
        raise ApiError(400, message, param=where[MAX_IMAGES])
    return tuple(_one(source, field, policy) for source, field in zip(sources, where, strict=True))


def _one(source: str, field: str, policy: PicturePolicy) -> str:
    try:
        if source.startswith(("http://", "https://")):
            body = fetch(source, Bounds(MAX_BYTES, SECONDS, policy.private_urls))
        elif source.startswith("data:"):
            body = _in_url(source)
        elif (bare := _bare_base64(source)) is not None:
            body = bare
        else:
            return _file(source, field, policy)
        _check_size(body)
    except BadImage as error:
        raise ApiError(400, f"{': '.join(filter(None, (error.what, error.why)))}.".capitalize(), param=field) from error
    return "data:;base64," + base64.b64encode(body).decode()


def _in_url(source: str) -> bytes:
    head, comma, body = source.partition(",")
    if not comma:
        raise BadImage("broken image", why="no comma in its data URL")
    if len(body) > MAX_BYTES * 3:  # a byte takes up to three characters
        raise BadImage("image too large", why=f"more than {MAX_BYTES} bytes")
    try:
        return base64.b64decode(body, validate=True) if head.endswith(";base64") else unquote_to_bytes(body)
    except (binascii.Error, ValueError) as error:
        raise BadImage("broken image", why=str(error)) from error


def _bare_base64(source: str) -> bytes | None:
    """Clients of the 2.5 release send the base64 of a file and nothing around it; None for anything else."""
    try:
        body = base64.b64decode(source, validate=True)
        upright_size(io.BytesIO(body))
    except (binascii.Error, ValueError, BadImage):
        return None
    return body


def _check_size(body: bytes) -> None:
    if len(body) > MAX_BYTES:
        raise BadImage("image too large", why=f"{len(body)} bytes, at most {MAX_BYTES} are taken")
    width, height = upright_size(io.BytesIO(body))
    if width * height > MAX_PIXELS:
        raise BadImage("image too large", why=f"{width}x{height} pixels, at most {MAX_PIXELS} are taken")


def _file(source: str, field: str, policy: PicturePolicy) -> str:
    """The path of a file below the folder that the server was started with; no other file is even looked for."""
    if policy.folder is None:
        message = "This server takes images from http(s) addresses and data URLs, not from files of its own machine."
        raise ApiError(400, message, param=field)
    folder = policy.folder.resolve()
    absent = ApiError(400, "There is no such file in the folder this server takes images from.", param=field)
    try:
        path = (folder / source.removeprefix("file://")).resolve()
    except (OSError, ValueError):
        raise absent from None
    if not path.is_relative_to(folder) or not path.is_file():
        raise absent
    if path.stat().st_size > MAX_BYTES:
        raise ApiError(400, f"The file has more than {MAX_BYTES} bytes.", param=field)
    _check_size(path.read_bytes())
    return str(path)
