"""Where the bytes of a medium are on this machine: the path that a row names, or where an address was kept."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from swift.core.transaction import UNFINISHED
from swift.data.image_fetch import Bounds, fetch
from swift.plan.data import default_media
from swift.prompts.image_header import named
from swift.prompts.images import BadMedium

REMOTE = ("http://", "https://")


def state_of(
    source: str, fault: type[BadMedium], check: Callable[[bytes], object], bounds: Bounds | None = None
) -> tuple[str, int, int]:
    """The path of a medium, and what changes with its content: the time of its last change in ns, and its size.

    What is at an address is fetched once and kept for good, where `check` does not raise for it. Raises `fault`.
    """
    path = source.removeprefix("file://")
    if source.startswith(REMOTE):
        path = str(_fetched(source, fault, check, bounds or Bounds()))
    try:
        state = os.stat(path)
    except (OSError, ValueError) as error:
        raise fault(
            f"missing {fault.noun}",
            why=os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error),
            where=named(source),
        ) from error
    if not stat.S_ISREG(state.st_mode):
        raise fault(f"missing {fault.noun}", why="it is no file", where=named(source))
    return path, state.st_mtime_ns, state.st_size


def _fetched(url: str, fault: type[BadMedium], check: Callable[[bytes], object], bounds: Bounds) -> Path:
    path = default_media() / "urls" / hashlib.sha256(url.encode()).hexdigest()
    if not path.is_file():
        body = fetch(url, bounds, fault)
        check(body)  # an error page is not kept for the next run
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f"{UNFINISHED}{path.name}-{os.getpid()}")
        scratch.write_bytes(body)
        os.replace(scratch, path)
    return path
