"""A process that waits in vain for the others: which one it is, where it stood, and who has the answer."""

from __future__ import annotations

import re
import traceback

from swift.core.environment import read_int
from swift.core.errors import PeerLost, SwiftError

CLOSED = re.compile(
    r"closed by peer|reset by peer|socket closed|broken pipe|remote process exited|ncclRemoteError", re.I
)
TIMED_OUT = re.compile(r"timed out|timeout", re.I)


def explain(error: RuntimeError, step: int, seconds: int) -> SwiftError | None:
    """What a failed collective operation after `step` means, with `--ddp_timeout` `seconds`; None for other errors."""
    message = str(error)
    place = f"in {_collective(error)} at step {step + 1}"
    rank = read_int("RANK", 0)
    if read_int("WORLD_SIZE", 1) == 1:
        return None
    if CLOSED.search(message):
        return PeerLost(
            f"rank {rank} lost the connection to another process {place}",
            why="that process has ended; what it said, or its launcher on its machine, tells why",
            next="go on from the last checkpoint with --resume_from_checkpoint auto",
        )
    if TIMED_OUT.search(message):
        return PeerLost(
            f"rank {rank} waited {seconds} s for the others {place}",
            why="another process hangs, or is slower than that",
            next="look at the other ranks; where they are only slow, raise --ddp_timeout",
        )
    return None


def _collective(error: BaseException) -> str:
    """The operation that failed: the function of torch.distributed on the way, else the backward pass."""
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename.endswith("distributed_c10d.py") and not frame.name.startswith(("_", "wrapper")):
            return frame.name
    return "the backward pass (all_reduce of gradients)"
