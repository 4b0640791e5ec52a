"""Several processes on one or more machines: the same command line again, under torchrun."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from swift.core.end_with_parent import starting_others
from swift.core.environment import read_int
from swift.core.errors import SwiftError


def wants_processes(env: Mapping[str, str]) -> bool:
    """Whether the environment asks for torchrun, and we do not run under it already."""
    return "LOCAL_RANK" not in env and bool(env.get("NPROC_PER_NODE") or env.get("NNODES"))


def torchrun_words(words: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """The command line that runs `swift WORDS` in NPROC_PER_NODE processes on each of NNODES machines."""
    nodes = read_int("NNODES", 1, env, low=1)
    address = env.get("MASTER_ADDR") or ("127.0.0.1" if nodes == 1 else None)
    if address is None:
        raise SwiftError("NNODES is above 1 but MASTER_ADDR is not set", next="export MASTER_ADDR=HOST-OF-NODE-0")
    port = read_int("MASTER_PORT", 0, env) or (_free_port() if nodes == 1 else 29500)
    return [
        sys.executable,
        "-m",
        "swift.core.torchrun",
        f"--nproc_per_node={read_int('NPROC_PER_NODE', 1, env, low=1)}",
        f"--nnodes={nodes}",
        f"--node_rank={read_int('NODE_RANK', 0, env)}",
        f"--master_addr={address}",
        f"--master_port={port}",
        "--shutdown-timeout=600",  # seconds that a stopped run has to save its checkpoint
        "-m",
        "swift",
        *words,
    ]


def relaunch(words: Sequence[str], env: Mapping[str, str]) -> int:
    """Run the command line under torchrun and return its exit code."""
    threads = max(1, (os.cpu_count() or 1) // read_int("NPROC_PER_NODE", 1, env, low=1))
    return run_child(torchrun_words(words, env), {"OMP_NUM_THREADS": str(threads), **env})


def run_child(command: Sequence[str], env: Mapping[str, str]) -> int:
    """Run a command, pass SIGTERM and SIGINT on to it, and return its exit code."""
    environment = dict(env)
    starting_others(environment)
    child = subprocess.Popen(command, env=environment)

    def forward(number: int, _frame: object) -> None:
        child.send_signal(number)

    # The terminal sends Ctrl-C to the child as well; we only outlive it.
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, forward)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN if sys.stdin.isatty() else forward)
    try:
        return child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
