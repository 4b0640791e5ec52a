"""Starts a program of a benchmark and watches it: what it logs, its peak memory, when its first step ends."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any


class Endless(Exception):
    """A program was ended because it took too long; `memory` is its peak resident set until then, in GiB."""

    def __init__(self, memory: float):
        self.memory = memory


def watch(
    command: list[str], folder: Path, log: Path, limit: float = math.inf
) -> tuple[list[dict[str, Any]], float, float]:
    """Run `command` -> the lines of its log, peak resident set in GiB, seconds until the first line with a loss.

    Raises Endless after `limit` seconds, SystemExit when the program fails.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    began = time.monotonic()
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        first, ended = 0.0, (0, 0, None)
        while not ended[0]:
            if not first and log.is_file() and '"loss"' in log.read_text():
                first = time.monotonic() - began
            time.sleep(0.02)
            if time.monotonic() - began > limit:
                os.kill(process.pid, signal.SIGKILL)  # `Popen.kill` would take the exit status away
            ended = os.wait4(process.pid, os.WNOHANG)
        _, status, usage = ended
    if status == signal.SIGKILL and time.monotonic() - began > limit:
        assert usage is not None
        raise Endless(usage.ru_maxrss / 2**20)
    if status:
        raise SystemExit(f"{command} failed:\n{(folder / 'output.txt').read_text()[-2000:]}")
    assert usage is not None
    return [json.loads(line) for line in log.read_text().splitlines()], usage.ru_maxrss / 2**20, first
