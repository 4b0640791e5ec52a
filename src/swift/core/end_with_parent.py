"""Processes of a run end with the one that started them, even when that is killed and can tell nobody."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping, MutableMapping

STARTER = "SWIFT_STARTED_BY"
"""Holds the number of the process that a launcher of ours starts others from."""
_PR_SET_PDEATHSIG = 1


def starting_others(env: MutableMapping[str, str]) -> None:
    """Note this process as the one that those it starts belong to."""
    env[STARTER] = str(os.getpid())


def end_with_parent(env: Mapping[str, str]) -> None:
    """Have the kernel kill this process when its parent ends. Only Linux can; elsewhere nothing happens.

    Killed and not asked to save: without its launcher a run has lost the store that its processes meet in. Checkpoints
    are whole at any moment.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if STARTER in env and env[STARTER] != str(os.getppid()):  # it ended before the kernel knew
        os.kill(os.getpid(), signal.SIGKILL)
