"""torchrun that ends like a command of ours: with the exit code of the process that failed, not with a traceback."""

from __future__ import annotations

import signal
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main() -> int:
    """Run the words after the module name; 75 after SIGTERM, 130 after Ctrl-C."""
    try:
        run.main(sys.argv[1:])
    except ChildFailedError as failed:
        _, failure = failed.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as stopped:
        return 130 if stopped.sigval == signal.SIGINT else 75
    return 0


if __name__ == "__main__":
    sys.exit(main())
