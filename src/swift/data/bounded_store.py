"""Files below a folder that is bounded, named by what went into them: there whole or not at all, damaged ones gone.

An entry begins with its CRC. What nobody has used for a day makes room; where that is not enough nothing more is kept.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from swift.core.log import log, once
from swift.core.transaction import UNFINISHED

MAGIC = b"swift-entry-1\n\0\0"
SUFFIX = ".entry"
LIMIT = 32 * 2**30
"""Most bytes of all entries."""
SHARE = 0.2
"""Most of the free disk."""
OLD = 24 * 3600.0
"""Seconds without use after which an entry goes when room is wanted."""
COUNTED = 64
"""Entries between two looks at how large the folder is."""


@dataclass
class BoundedStore:
    """The entries below `folder`. Every process has its own; they share the files."""

    folder: Path
    limit: int = LIMIT
    _put: int = field(default=0, compare=False)
    _full: bool = field(default=False, compare=False)

    def read(self, name: str) -> memoryview | None:
        """The content of an entry; None where there is none, or a damaged one, which is said."""
        path = self._path(name)
        try:
            data = path.read_bytes()
            os.utime(path)  # what was used lately stays longest
        except OSError:
            return None
        start = len(MAGIC) + 4
        content = memoryview(data)[start:]
        if data.startswith(MAGIC) and data[len(MAGIC) : start] == struct.pack("<I", zlib.crc32(content)):
            return content
        log.warning("cache: %s is damaged and is made again", path)
        with suppress(OSError):
            path.unlink()
        return None

    def write(self, name: str, *pieces: bytes) -> None:
        """Keep an entry, which is its pieces one behind the other, where there is room."""
        path = self._path(name)
        if not self._has_room():
            return
        scratch = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")
        try:
            _write(scratch, (MAGIC, struct.pack("<I", _checksum(pieces)), *pieces))
            os.replace(scratch, path)
        except OSError as error:
            once(f"nothing is kept in {self.folder}, and made again when it is needed: {error.strerror}")
            self._full = True
            with suppress(OSError):
                scratch.unlink(missing_ok=True)

    def link(self, name: str, other: str) -> None:
        """Let an entry be known by another name too."""
        path, entry = self._path(other), self._path(name)
        with suppress(OSError):  # another process was first, nothing was kept, or the disk knows no links
            try:
                os.link(entry, path)
            except FileNotFoundError:
                path.parent.mkdir(exist_ok=True)
                os.link(entry, path)

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest}{SUFFIX}"

    def _has_room(self) -> bool:
        """Look at the size of the folder now and then, and let go of what nobody has used for a day."""
        if self._full:
            return False
        self._put += 1
        if self._put % COUNTED != 1:
            return True
        self._full = not clear_old(self.folder, self.limit)
        if self._full:
            once(f"the cache {self.folder} is full: what it does not hold is made each time it is needed")
        return not self._full


def _checksum(pieces: Sequence[bytes]) -> int:
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return crc


def _write(path: Path, pieces: Sequence[bytes]) -> None:
    try:
        file = path.open("wb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("wb")
    with file:
        file.writelines(pieces)


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
