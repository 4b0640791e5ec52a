"""Unpacks a zip or tar archive into a folder that is there whole or not at all."""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from filelock import FileLock

from swift.core.errors import SwiftError
from swift.core.log import log

BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, RuntimeError)
"""What reading a damaged, locked or exotic archive raises."""


class Packed(NamedTuple):
    """A file inside an archive."""

    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack `archive` into `folder`, unless it is there already. Of two processes one does it, the other waits.

    One that was cut off goes on with the file it stopped in. Links and devices stay out. Raises SwiftError for an
    archive that is broken or whose names lead out of the folder.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            unfinished = folder.with_name(f"{folder.name}.partial")
            unfinished.mkdir(exist_ok=True)
            try:
                count = sum(1 for packed in _files(archive) if _write(packed, unfinished, archive))
            except BROKEN as error:
                raise _cannot_be_read(archive, error) from error
            os.replace(unfinished, folder)
            log.info("unpacked %d files of %s into %s", count, archive.name, folder)
    return folder


def _write(packed: Packed, folder: Path, archive: Path) -> bool:
    target = folder / _safe(packed.name, archive)
    if target.is_file() and target.stat().st_size == packed.size:
        return True  # written before the run was cut off
    target.parent.mkdir(parents=True, exist_ok=True)
    source = packed.open()
    if source is None:
        return False
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    return True


def _safe(name: str, archive: Path) -> PurePosixPath:
    """The name below the folder; a leading slash is taken off, as tar and unzip do. Raises SwiftError for `..`."""
    path = PurePosixPath(name.replace("\\", "/").lstrip("/"))
    if ".." in path.parts or not path.parts or path.parts[0][1:2] == ":":
        raise SwiftError(
            f"the archive {archive.name} wants to write outside its folder",
            where=str(archive.resolve()),
            why=f"it holds {name!r}",
            next="do not use this data set",
        )
    return path


def _files(archive: Path) -> Iterator[Packed]:
    """By what is inside: hubs keep files under names without a suffix."""
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile():
                    yield Packed(member.name, member.size, partial(tar.extractfile, member))
        return
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            if not info.is_dir():
                yield Packed(info.filename, info.file_size, partial(zipped.open, info))


def _cannot_be_read(archive: Path, error: Exception) -> SwiftError:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return SwiftError(
            "the disk is full", where=str(archive.resolve()), next="free some space and run the command again"
        )
    return SwiftError(
        f"the archive {archive.name} cannot be unpacked",
        where=str(archive.resolve()),
        why=f"{type(error).__name__}: {error}".rstrip(": "),
        next="remove the file and run the command again: it is downloaded anew",
    )
