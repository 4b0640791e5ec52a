"""torchrun that ends like a command of ours: with the exit code of the process that failed, not with a traceback."""

from __future__ import annotations

import logging
import os
import signal
import sys

os.environ.setdefault("LOGLEVEL", "CRITICAL")  # read when torch is imported: our processes speak for themselves

from torch.distributed import run
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from swift.core.end_with_parent import end_with_parent, starting_others

logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
WHY = {
    "SIGKILL": " (the machine may have run out of memory)",
    "SIGABRT": " (NCCL ends a process whose collective operation timed out, and says which above)",
}


def main() -> int:
    """Run the words after the module name; 75 after SIGTERM, 130 after Ctrl-C."""
    end_with_parent(os.environ)
    starting_others(os.environ)
    try:
        run.main(sys.argv[1:])
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        if failure.exitcode >= 0:
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        why = WHY.get(name, "")
        print(f"error: process {rank} was ended by {name}{why}", file=sys.stderr)
        return 128 - failure.exitcode
    except SignalException as stopped:
        return 130 if stopped.sigval == signal.SIGINT else 75
    return 0


if __name__ == "__main__":
    sys.exit(main())
