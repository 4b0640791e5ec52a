"""`swift …` in a process of its own, forked from one that has the imports behind it, so that it can be killed."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["swift.training.train"])
SECONDS = 300.0


def _main(words: Sequence[str], output: str, environment: Mapping[str, str], folder: str | None) -> None:
    os.environ.update(environment)
    if folder is not None:
        os.chdir(folder)
    sys.stderr = sys.stdout = open(output, "a", buffering=1)  # noqa: SIM115
    import torch

    from swift.cli import main

    torch.set_num_threads(1)
    sys.argv = ["swift", *words]
    sys.exit(main(words))


def start(
    words: Sequence[str], output: Path, environment: Mapping[str, str] | None = None, *, folder: Path | None = None
) -> BaseProcess:
    """Start `swift WORDS`, in a `folder`; what it prints goes to the file `output`."""
    at = None if folder is None else str(folder)
    process = CONTEXT.Process(target=_main, args=(list(words), str(output), environment or {}, at))
    process.start()
    return process


def ranks(count: int, *, machines: bool = False) -> list[dict[str, str]]:
    """The environment of each of `count` processes that form one run, as torchrun would set it.

    Each is on a machine of its own with `machines`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    if machines:
        shared |= {"LOCAL_WORLD_SIZE": 1}
    places = [{**shared, "RANK": i, "LOCAL_RANK": 0 if machines else i} for i in range(count)]
    return [{name: str(value) for name, value in place.items()} for place in places]


def wait_until(condition: Callable[[], bool], process: BaseProcess) -> None:
    """Wait until the condition holds, or the process has ended."""
    end = time.monotonic() + SECONDS
    while not condition() and process.is_alive():
        if time.monotonic() > end:
            process.kill()
            raise TimeoutError
        time.sleep(0.01)


def finished(process: BaseProcess) -> int:
    """The exit code, once the process has ended."""
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError
    return process.exitcode
