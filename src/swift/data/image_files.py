"""Images of rows, opened and decoded in one way everywhere: turned as their EXIF says, as RGB, whole or not at all."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote_to_bytes

from PIL import Image, ImageOps, UnidentifiedImageError

from swift.core.transaction import UNFINISHED
from swift.data.image_fetch import Bounds, fetch
from swift.plan.data import default_media
from swift.prompts.images import BadImage

REMOTE = ("http://", "https://")
MAX_PIXELS = 178_956_970
"""Twice Pillow's own bound, where it refuses: an image that would take more than half a gigabyte decoded."""


def read_image(source: str) -> Image.Image:
    """The image at a path, in a data URL or at an http(s) address, decoded to its end: RGB, upright.

    What was fetched is kept for good, beside the media of datasets. Raises BadImage with the reason.
    """
    if source.startswith("data:"):
        return _of_data(source)
    path = str(_fetched(source)) if source.startswith(REMOTE) else source.removeprefix("file://")
    try:
        state = os.stat(path)
    except (OSError, ValueError) as error:
        raise BadImage("missing image", why=f"{_short(source)}: {error}") from error
    return _of_file(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=32)
def _of_file(path: str, changed: int, size: int) -> Image.Image:
    """The last few images stay, as a row is first counted and then made into pixels."""
    return _decoded(path, path)


@lru_cache(maxsize=32)
def _of_data(source: str) -> Image.Image:
    return _decoded(io.BytesIO(_data(source)), source)


def stated_size(file: str | io.BytesIO) -> tuple[int, int]:
    """Width and height by the head of a file, before anything is decoded. Raises BadImage for what is no image."""
    try:
        with Image.open(file) as image:
            return image.size
    except UnidentifiedImageError as error:
        raise BadImage("broken image", why="no image format that is known") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadImage("broken image", why=str(error)) from error


def _fetched(url: str) -> Path:
    path = default_media() / "urls" / hashlib.sha256(url.encode()).hexdigest()
    if not path.is_file():
        body = fetch(url, Bounds())
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f"{UNFINISHED}{path.name}-{os.getpid()}")
        scratch.write_bytes(body)
        os.replace(scratch, path)
    return path


def _data(source: str) -> bytes:
    head, comma, body = source.partition(",")
    if not comma:
        raise BadImage("broken image", why=f"{_short(source)} is no data URL")
    try:
        return base64.b64decode(body, validate=True) if head.endswith(";base64") else unquote_to_bytes(body)
    except (binascii.Error, ValueError) as error:
        raise BadImage("broken image", why=f"{_short(source)}: {error}") from error


def _decoded(file: str | io.BytesIO, source: str) -> Image.Image:
    try:
        with Image.open(file) as image:
            width, height = image.size
            if not width or not height:
                raise BadImage("broken image", why=f"{width}x{height} pixels: {_short(source)}")
            if width * height > MAX_PIXELS:
                raise BadImage("image too large", why=f"{width}x{height} pixels: {_short(source)}")
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise BadImage("broken image", why=f"no image format that is known: {_short(source)}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadImage("broken image", why=f"{error}: {_short(source)}") from error


def _rgb(image: Image.Image) -> Image.Image:
    """Transparent pixels on white: what is hidden below full transparency must not show. 16 bits become 8."""
    if image.mode.startswith("I") or image.mode == "F":
        values: tuple[float, float] = image.getextrema()  # pyright: ignore[reportAssignmentType]  # one band
        scale = 255 / 65535 if values[0] >= 0 and values[1] > 255 else 1
        return image.convert("F").point(lambda value: value * scale).convert("L").convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, (255, 255, 255, 255)), seen).convert("RGB")
    return image.convert("RGB")


def _short(source: str) -> str:
    return source if len(source) <= 80 else f"{source[:79]}…"
