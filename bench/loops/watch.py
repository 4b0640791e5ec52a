"""Starts a program of a benchmark and watches it: what it logs, its peak memory, when its first step ends."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil


class Endless(Exception):
    """A program was ended because it took too long; `memory` is at least what it, or what it started, held, in GiB."""

    def __init__(self, memory: float):
        self.memory = memory


def watch(
    command: list[str], folder: Path, log: Path, limit: float = math.inf, threads: int = 2
) -> tuple[list[dict[str, Any]], float, float]:
    """Run `command` -> the lines of its log, peak resident set in GiB, seconds until the first line with a loss.

    Each line has `cpu` as well: the CPU seconds of the program and what it started, when the line was there. Raises
    Endless after `limit` seconds, SystemExit when the program fails.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    began = time.monotonic()
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        first, memory, ended, seconds = 0.0, 0.0, (0, 0, None), list[float]()
        while not ended[0]:
            written = log.read_text() if log.is_file() else ""
            if not first and '"loss"' in written:
                first = time.monotonic() - began
            seconds += [_cpu(process.pid)] * (written.count("\n") - len(seconds))
            time.sleep(0.02)
            if time.monotonic() - began > limit:
                memory = max(memory, _killed(process.pid))
            ended = os.wait4(process.pid, os.WNOHANG)
        _, status, usage = ended
    if status == signal.SIGKILL and time.monotonic() - began > limit:
        assert usage is not None
        raise Endless(max(memory, usage.ru_maxrss / 2**20))
    if status:
        raise SystemExit(f"{command} failed:\n{(folder / 'output.txt').read_text()[-2000:]}")
    assert usage is not None
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    seconds += [usage.ru_utime + usage.ru_stime] * (len(lines) - len(seconds))
    return [{**line, "cpu": cpu} for line, cpu in zip(lines, seconds, strict=True)], usage.ru_maxrss / 2**20, first


def _cpu(pid: int) -> float:
    """CPU seconds of a program and of what it has started, until now."""
    try:
        program = psutil.Process(pid)
        times = [each.cpu_times() for each in (program, *program.children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0.0
    return sum(each.user + each.system for each in times) + times[0].children_user + times[0].children_system


def _killed(pid: int) -> float:
    """End a program with all that it has started. -> the largest resident set of them, in GiB."""
    program = psutil.Process(pid)
    every, largest = [program, *program.children(recursive=True)], 0
    for each in every:
        with suppress(psutil.NoSuchProcess):
            largest = max(largest, each.memory_info().rss)
    for each in every:
        with suppress(psutil.NoSuchProcess):
            each.kill()  # `Popen.kill` would take the exit status away
    return largest / 2**30
