"""Pixels that a file does not hold, and that Pillow leaves black or grey without a word."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress

from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By PNG's kind of colours."""
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of interlaced PNGs: the first column and row of each pass, and the steps to the next ones."""
PIECE = 2**20
SCAN, END = b"\xff\xda", b"\xff\xd9"
HUFFMAN = (0xC0, 0xC1)
"""JPEGs of one scan whose bits stand alone: the last ones are no part of what was read before."""
NOTHING = {127, 128}
"""What is seen where a JPEG has no coefficients: half of the light, inverted or not."""
OTHER_BITS = b"\xaa" * 4096
"""A decoder that lacks bits makes other pixels of them, and one that has them all passes them over."""


def missing_pixels(image: Image.Image, content: bytes) -> str | None:
    """What the file of an image lacks, as a reason; None for what is whole, as far as its format can tell.

    `image` is what was decoded of it and nothing else.
    """
    match image.format:
        case "PNG":
            return _of_png(image, content)
        case "JPEG":
            return _of_jpeg(image, content)
    return None


def _of_png(image: Image.Image, content: bytes) -> str | None:
    """Pillow checks no checksum of pixels, and leaves rows that are not there black."""
    head, pixels = b"", []
    for kind, body, whole in _chunks(content):
        if kind == b"IDAT" and not whole:
            return "its pixels are not those of their checksum"
        head = body if kind == b"IHDR" else head
        pixels += [body] if kind == b"IDAT" else []
    last_row = image.crop((0, image.height - 1, image.width, image.height))
    if any(last_row.tobytes()) and not head[12]:
        return None
    stated = _bytes_of_pixels(head)
    held = _inflated(pixels, stated)
    return f"it has {held} of {stated} bytes of pixels" if held < stated else None


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Kind, body and whether the checksum holds, which it does where the file ends before it: pixels may be whole."""
    place = len(PNG)
    while place + 8 < len(content):
        end = place + 8 + int.from_bytes(content[place : place + 4])
        stated = content[end : end + 4]
        holds = len(stated) < 4 or zlib.crc32(content[place + 4 : end]).to_bytes(4) == stated
        yield content[place + 4 : place + 8], content[place + 8 : end], holds
        place = end + 4


def _bytes_of_pixels(head: bytes) -> int:
    width, height = int.from_bytes(head[:4]), int.from_bytes(head[4:8])
    bits = head[8] * CHANNELS[head[9]]
    total = 0
    for left, top, right, down in PASSES if head[12] else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        total += max(0, rows) * (1 + -(-columns * bits // 8)) if columns > 0 else 0
    return total


def _inflated(parts: Sequence[bytes], enough: int) -> int:
    """How many bytes are packed in them, without keeping these and as far as they can be unpacked."""
    packed, count = zlib.decompressobj(), 0
    with suppress(zlib.error):
        for part in parts:
            made = packed.decompress(part, PIECE)
            while made and count < enough:
                count += len(made)
                made = packed.decompress(packed.unconsumed_tail, PIECE)
    return count


def _of_jpeg(image: Image.Image, content: bytes) -> str | None:
    """libjpeg fills what is missing before the mark of the end with nothing, which is grey."""
    last = image.getpixel((image.width - 1, image.height - 1))
    if not NOTHING.issuperset(last if isinstance(last, tuple) else (last,)):
        return None
    end = content.find(END, _scan(content))
    if end < 0:
        return None
    with Image.open(io.BytesIO(content[:end] + OTHER_BITS + END), formats=("JPEG",)) as other:
        other.load()
        return "its pixels end before it does" if other.tobytes() != image.tobytes() else None


def _scan(content: bytes) -> int:
    """Where the pixels of a JPEG begin, behind its head with its thumbnail; its end for other kinds of it."""
    place, alone = 2, False
    while content[place : place + 2] != SCAN:
        if place + 4 > len(content):
            return len(content)
        alone = alone or content[place + 1] in HUFFMAN
        place += 2 + int.from_bytes(content[place + 2 : place + 4])
    return place if alone else len(content)
