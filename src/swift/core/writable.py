"""Writing where there may be no room or no right to: one message for it, and before the work where that is possible."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swift.core.errors import SwiftError


def require_writable(folder: Path, where: str, next: str | None = None) -> None:
    """Create `folder` and write a file in it. Raises SwiftError at the flag `where` when that cannot be done."""
    probe = folder / ".tmp-probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with probe.open("wb") as file:
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except FileExistsError as error:
        raise SwiftError(f"{folder} is a file, not a folder", where=where, next=next) from error
    except OSError as error:
        raise SwiftError(f"{folder} cannot be written to", where=where, why=reason(error), next=next) from error


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """Of a folder that is made inside, and of those it is in: what was not there before and stayed empty goes again."""
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        for path in created:
            if not path.is_dir() or any(path.iterdir()):
                break
            path.rmdir()


@contextmanager
def writing(target: Path, *, where: str | None = None, next: str | None = None) -> Iterator[None]:
    """Writes of `target` that the system refuses inside become a SwiftError that says why."""
    try:
        yield
    except OSError as error:
        raise SwiftError(f"{target} could not be written", where=where, why=reason(error), next=next) from error


def reason(error: OSError) -> str:
    """Why the system refused, in its own words, and of which file."""
    words = error.strerror or str(error)
    return f"{error.filename}: {words}" if error.filename else words
