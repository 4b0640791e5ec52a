"""Files and folders that one process at a time works in: locked by the system, which lets go however a process ends."""

from __future__ import annotations

import errno
import fcntl
import logging
from pathlib import Path

from swift.core.log import once

HELD = (errno.EWOULDBLOCK, errno.EACCES)


def lock(descriptor: int, path: Path, *, wait: bool = False) -> bool:
    """Lock what is open at `path` until its descriptor is closed. -> False where another process has it.

    Where a disk knows no locks that is said once, and nothing keeps two processes apart.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in HELD:
            return False
        reason = f"{path.parent} knows no locks ({error.strerror}): nothing keeps two processes apart in it"
        once(reason, level=logging.INFO)
    return True
