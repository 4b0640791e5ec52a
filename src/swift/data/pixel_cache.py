"""Decoded and resized pixels on disk, named by what went into them, so that no image is decoded twice.

An entry is the raw RGB of one image, or of the frames of a video. Its name stands for a file as it is (path, time,
size) and for what was done to it. A file that holds the same bytes as another gets a second name for its entry.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from swift.data.bounded_store import BoundedStore

Pixels = Sequence[Image.Image]


@dataclass(frozen=True)
class PixelCache:
    """Images in a store."""

    store: BoundedStore

    def images(self, identity: str, content: Callable[[], bytes], made_how: str, make: Callable[[], Pixels]) -> Pixels:
        """The entry of a file, or what `make` gives, which is kept.

        `identity` stands for the file as it is, `content` are its bytes, and `made_how` says what `make` does to them.
        """
        by_file = f"{identity}\0{made_how}"
        kept = self.store.read(by_file)
        if kept is not None:
            return _unpacked(kept)
        by_content = f"{hashlib.sha256(content()).hexdigest()}\0{made_how}"
        kept = self.store.read(by_content)
        images = make() if kept is None else _unpacked(kept)
        if kept is None:
            self.store.write(by_content, *_packed(images))
        self.store.link(by_content, by_file)
        return images


def _packed(images: Pixels) -> Iterator[bytes]:
    yield struct.pack("<I", len(images))
    yield b"".join(struct.pack("<II", *image.size) for image in images)
    for image in images:
        yield image.tobytes()


def _unpacked(data: bytes | memoryview) -> Pixels:
    (count,) = struct.unpack_from("<I", data)
    place, images, view = 4 + 8 * count, [], memoryview(data)
    for number in range(count):
        width, height = struct.unpack_from("<II", data, 4 + 8 * number)
        images.append(Image.frombytes("RGB", (width, height), view[place : place + 3 * width * height]))
        place += 3 * width * height
    return images
