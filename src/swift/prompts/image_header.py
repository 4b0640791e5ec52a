"""The size of an image by the head of its file, before anything is decoded."""

from __future__ import annotations

import base64
import binascii
import io
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, unquote_to_bytes

from PIL import Image, ImageFile, UnidentifiedImageError

from swift.prompts.images import BadImage, BadMedium

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "TGA", "ICO", "DDS", "PSD")
FORMATS += ("AVIF",) if find_spec("PIL.AvifImagePlugin") is not None else ()  # from Pillow 11.3 on
"""What is opened, the usual ones first. Not EPS, which is a program: Pillow would have Ghostscript run it."""
TURNED = (5, 6, 7, 8)
"""Values of EXIF's orientation that lay the image on its side."""
ORIENTATION = 0x0112
MAX_PIXELS = 178_956_970
"""Twice Pillow's own bound, where it refuses: an image that would take more than half a gigabyte decoded."""


def upright_size(file: str | Path | BinaryIO) -> tuple[int, int]:
    """Width and height in pixels, turned as its EXIF says. Raises BadImage for what is no image, or far too large."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            width, height = checked_size(image, file)
            # That of PNG would decode the image, to see whether EXIF stands behind it.
            turned = Image.Image.getexif(image).get(ORIENTATION) in TURNED
            return (height, width) if turned else (width, height)
    except PIL_FAULTS as error:
        raise bad_image(error, file) from error


def bad_image(error: Exception, file: object) -> BadImage:
    """What Pillow says of a file, as the fault of a row or a request."""
    if isinstance(error, UnidentifiedImageError):
        return BadImage("broken image", why="no image format that is known", where=named(file))
    if isinstance(error, Image.DecompressionBombError):
        return BadImage("image too large", why=f"more than {MAX_PIXELS} pixels", where=named(file))
    return BadImage("broken image", why=str(error) or type(error).__name__, where=named(file))


def checked_size(image: ImageFile.ImageFile, file: object) -> tuple[int, int]:
    """Width and height of an open image, as they stand in the file. Raises BadImage for sizes nobody decodes."""
    width, height = image.size
    if not width or not height:
        raise BadImage("broken image", why=f"{width}x{height} pixels", where=named(file))
    if width * height > MAX_PIXELS:
        raise BadImage("image too large", why=f"{width}x{height} pixels", where=named(file))
    return width, height


PIL_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    KeyError,
    OverflowError,
    ZeroDivisionError,
    NotImplementedError,
    MemoryError,
    Image.DecompressionBombError,
)
"""What Pillow raises for files that are damaged; its plugins parse bytes with little of their own checking."""


def bytes_of(source: str, fault: type[BadMedium] = BadImage) -> bytes:
    """What a data URL holds. Raises `fault`."""
    head, comma, body = source.partition(",")
    if not comma:
        raise fault(f"broken {fault.noun}", why="no comma in a data URL", where=named(source))
    try:
        if head.replace(" ", "").lower().endswith(";base64"):
            return base64_of(unquote(body))
        return unquote_to_bytes(body)
    except (binascii.Error, ValueError) as error:
        raise fault(f"broken {fault.noun}", why=str(error), where=named(source)) from error


def base64_of(text: str) -> bytes:
    """The bytes of base64, in which line breaks and the signs at its end that fill it up may stand or not, as browsers
    read it. Raises ValueError."""
    bare = "".join(text.split()).rstrip("=")
    return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)


def size_of(source: str) -> tuple[int, int]:
    """Width and height of the image at a path or in a data URL. Raises BadImage."""
    return upright_size(io.BytesIO(bytes_of(source)) if source.startswith("data:") else source.removeprefix("file://"))


def named(source: object) -> str | None:
    """A path or address for a message, without the bytes of a data URL."""
    if not isinstance(source, str | Path):
        return None
    text = str(source)
    return f"{text[:40]}…" if text.startswith("data:") and len(text) > 40 else text
