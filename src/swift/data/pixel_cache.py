"""Decoded and resized pixels on disk, named by what went into them, so that no image is decoded twice.

An entry is one file: what it is, its CRC, and the raw RGB of its images. Its name stands for a file as it is (path,
time, size) and for what was done to it. A file that holds the same bytes as another gets a second name for its entry.
Files appear whole or not at all, and damaged ones are made again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from swift.core.log import log, once
from swift.core.transaction import UNFINISHED

MAGIC = b"swift-pixels-1\n\0"
SUFFIX = ".pixels"
LIMIT = 32 * 2**30
"""Most bytes of all entries."""
SHARE = 0.2
"""Most of the free disk."""
OLD = 24 * 3600.0
"""Seconds without use after which an entry goes when room is wanted."""
COUNTED = 64
"""Entries between two looks at how large the folder is."""

Pixels = Sequence[Image.Image]


@dataclass
class PixelCache:
    """The entries below `folder`. Every process has its own; they share the files."""

    folder: Path
    limit: int = LIMIT
    _put: int = field(default=0, compare=False)
    _full: bool = field(default=False, compare=False)

    def images(self, identity: str, content: Callable[[], bytes], made_how: str, make: Callable[[], Pixels]) -> Pixels:
        """The entry of a file, or what `make` gives, which is kept.

        `identity` stands for the file as it is, `content` are its bytes, and `made_how` says what `make` does to them.
        """
        by_file = self._path(f"{identity}\0{made_how}")
        kept = self._read(by_file)
        if kept is not None:
            return kept
        by_content = self._path(hashlib.sha256(content()).hexdigest() + "\0" + made_how)
        kept = self._read(by_content)
        if kept is None:
            kept = make()
            self._write(by_content, kept)
        self._link(by_content, by_file)
        return kept

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest}{SUFFIX}"

    def _read(self, path: Path) -> Pixels | None:
        try:
            with path.open("rb") as file:
                data = file.read()
            os.utime(path)  # what was used lately stays longest
        except OSError:
            return None
        images = _unpacked(data)
        if images is None:
            log.warning("pixel cache: %s is damaged and is made again", path)
            path.unlink(missing_ok=True)
        return images

    def _write(self, path: Path, images: Pixels) -> None:
        data = _packed(images)
        if not self._has_room():
            return
        scratch = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(data)
            os.replace(scratch, path)
        except OSError as error:
            once(f"pixels are not kept in {self.folder}, and decoded again when they are needed: {error.strerror}")
            self._full = True
            with suppress(OSError):
                scratch.unlink(missing_ok=True)

    def _link(self, entry: Path, name: Path) -> None:
        try:
            name.parent.mkdir(parents=True, exist_ok=True)
            os.link(entry, name)
        except OSError:
            return  # another process was first, the entry was not kept, or the disk knows no links

    def _has_room(self) -> bool:
        """Look at the size of the folder now and then, and let go of what nobody has used for a day."""
        if self._full:
            return False
        self._put += 1
        if self._put % COUNTED != 1:
            return True
        self._full = not clear_old(self.folder, self.limit)
        if self._full:
            once(f"the pixel cache {self.folder} is full: other images are decoded each time they are needed")
        return not self._full


def clear_old(folder: Path, limit: int) -> bool:
    """Whether there is room for more; entries that nobody has used for a day are let go of for it, oldest first."""
    entries = {}
    for path in folder.glob(f"??/*{SUFFIX}"):
        try:
            state = path.stat()
        except OSError:
            continue  # gone meanwhile
        entries.setdefault(state.st_ino, (state.st_mtime, state.st_size, []))[2].append(path)
    size = sum(entry[1] for entry in entries.values())
    existing = next(each for each in (folder, *folder.parents) if each.is_dir())
    most = min(limit, int((shutil.disk_usage(existing).free + size) * SHARE))
    for used, bytes_of, names in sorted(entries.values()):
        if size < most or time.time() - used < OLD:
            break
        for name in names:
            name.unlink(missing_ok=True)
        size -= bytes_of
    return size < most


def _packed(images: Pixels) -> bytes:
    body = b"".join(image.tobytes() for image in images)
    sizes = b"".join(struct.pack("<II", *image.size) for image in images)
    return b"".join((MAGIC, struct.pack("<II", zlib.crc32(sizes + body), len(images)), sizes, body))


def _unpacked(data: bytes) -> Pixels | None:
    """The images of an entry; None where it is damaged."""
    start = len(MAGIC) + 8
    if len(data) < start or not data.startswith(MAGIC):
        return None
    crc, count = struct.unpack_from("<II", data, len(MAGIC))
    if zlib.crc32(memoryview(data)[start:]) != crc:
        return None
    place = start + 8 * count
    images = []
    for number in range(count):
        width, height = struct.unpack_from("<II", data, start + 8 * number)
        images.append(Image.frombytes("RGB", (width, height), memoryview(data)[place : place + 3 * width * height]))
        place += 3 * width * height
    return images
