"""The token cache: shards on disk, named by what went into them, so that nothing is ever encoded twice.

A shard is one file `<folder>/<recipe>/<key>.shard`: the packed bytes and their SHA-256. `recipe` stands for the
template, the tokenizer and the length options, `key` for the bytes of the rows. Files appear whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from swift.core.log import log
from swift.core.transaction import UNFINISHED, sync, write_file
from swift.data.shard import Shard, unpack

DIGEST = hashlib.sha256().digest_size
ABOUT = "about.json"


@dataclass(frozen=True)
class TokenCache:
    """The shards of one recipe below `folder`."""

    folder: Path
    recipe: str
    description: str = ""
    rows: Counter[str] = field(default_factory=Counter, compare=False)
    """How many rows of this run were `found` in the cache, of how many `asked` for."""

    @property
    def home(self) -> Path:
        return self.folder / self.recipe

    def path(self, key: str) -> Path:
        return self.home / f"{key}.shard"

    def get(self, key: str) -> Shard | None:
        """The shard, mapped into memory; None when it is not there, or damaged (which is said)."""
        path = self.path(key)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        with file:
            if os.fstat(file.fileno()).st_size <= DIGEST:
                return self._damaged(path)
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with memoryview(data) as view, view[:-DIGEST] as body:
            whole = hashlib.sha256(body).digest() == view[-DIGEST:]
        return unpack(data) if whole else self._damaged(path)

    def put(self, key: str, packed: bytes) -> None:
        """Write a shard in one step."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")
        try:
            with scratch.open("wb") as file:
                file.write(packed)
                file.write(hashlib.sha256(packed).digest())
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)

    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.home.glob("*.shard"))

    def describe(self) -> None:
        """Leave a note in the folder on what it holds, for `swift cache ls`."""
        self.home.mkdir(parents=True, exist_ok=True)
        if not (self.home / ABOUT).exists():
            write_file(self.home / ABOUT, json.dumps({"about": self.description, "made": time.time()}))

    def _damaged(self, path: Path) -> None:
        log.warning("token cache: %s is damaged and is made again", path)


@dataclass(frozen=True)
class Stored:
    """What the cache holds for one recipe."""

    recipe: str
    about: str
    shards: int
    bytes: int
    used: float
    """Time of the newest shard, seconds since the epoch."""


def stored(folder: Path) -> list[Stored]:
    """Everything in the cache, newest first."""
    stored = []
    for home in folder.iterdir() if folder.is_dir() else ():
        if not home.is_dir():
            continue
        stats = [path.stat() for path in home.glob("*.shard")]
        note = home / ABOUT
        about = json.loads(note.read_text(encoding="utf-8"))["about"] if note.is_file() else "?"
        newest = max((stat.st_mtime for stat in stats), default=home.stat().st_mtime)
        stored.append(Stored(home.name, about, len(stats), sum(stat.st_size for stat in stats), newest))
    return sorted(stored, key=lambda item: -item.used)


def remove(folder: Path, recipe: str) -> None:
    """Delete what the cache holds for one recipe."""
    shutil.rmtree(folder / recipe)
    sync(folder)
