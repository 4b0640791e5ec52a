"""torchrun that ends like a command of ours: with the exit code of the process that failed, not with a traceback."""

from __future__ import annotations

import os
import signal
import sys

os.environ.setdefault("LOGLEVEL", "CRITICAL")  # read when torch is imported: our processes speak for themselves

from torch.distributed import run
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main() -> int:
    """Run the words after the module name; 75 after SIGTERM, 130 after Ctrl-C."""
    try:
        run.main(sys.argv[1:])
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        if failure.exitcode >= 0:
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        why = " (the machine may have run out of memory)" if name == "SIGKILL" else ""
        print(f"error: process {rank} was ended by {name}{why}", file=sys.stderr)
        return 128 - failure.exitcode
    except SignalException as stopped:
        return 130 if stopped.sigval == signal.SIGINT else 75
    return 0


if __name__ == "__main__":
    sys.exit(main())
