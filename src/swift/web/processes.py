"""Processes told apart for good: by number and start time, never by their command line."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path

import psutil

from swift.core.job_folder import VARIABLE
from swift.web.runner import start_time

GONE = (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess)


def alive(pid: int, started: str) -> bool:
    """Whether the process that began at `started` (see `runner.start_time`) still runs; a zombie does not."""
    if start_time(pid) != started:
        return False
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except GONE:
        return False


def of_job(folder: Path, known: Iterable[tuple[int, str]]) -> list[psutil.Process]:
    """All processes of a job: those `known` by number and start time, what they started, and what inherited its folder.

    The last finds ranks whose launcher has died. The environment is compared as a whole value, so a process that only
    mentions the same path is none of them.
    """
    processes: dict[int, psutil.Process] = {}
    for pid, started in known:
        if alive(pid, started):
            try:
                process = psutil.Process(pid)
                processes |= {each.pid: each for each in (process, *process.children(recursive=True))}
            except GONE:
                continue
    for process in psutil.process_iter():
        try:
            if process.uids().real == os.getuid() and process.environ().get(VARIABLE) == str(folder):
                processes.setdefault(process.pid, process)
        except (*GONE, OSError):
            continue
    processes.pop(os.getpid(), None)
    return [process for process in processes.values() if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except GONE:
        return False


def end(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal, unless the process has ended; psutil compares the start time first."""
    try:
        process.send_signal(number)
    except GONE:
        return


def environment_of(pid: int, started: str) -> dict[str, str]:
    """The environment a process was started with; empty when it has ended."""
    if not alive(pid, started):
        return {}
    try:
        return psutil.Process(pid).environ()
    except GONE:
        return {}
