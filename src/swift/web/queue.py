"""The queue: jobs start when the devices they want are free, and stopped ones that do not end are killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Mapping

from swift.core.log import log
from swift.web.jobs import Job, Jobs

INTERVAL = 0.3
CPU = "cpu"
"""The device of a machine without a GPU: one training at a time."""


def devices_of_machine(env: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The GPUs by number as CUDA_VISIBLE_DEVICES takes them, or the CPU; asked without loading torch."""
    visible = env.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")) or (CPU,)
    if shutil.which("nvidia-smi") is None:
        return (CPU,)
    listed = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return tuple(listed.stdout.split()) if listed.returncode == 0 and listed.stdout.strip() else (CPU,)


def wanted_devices(command: str, chosen: tuple[str, ...], machine: tuple[str, ...], *, dry: bool) -> tuple[str, ...]:
    """What a job occupies. A dry run loads nothing; on a CPU an answering server may run beside a training."""
    if dry or (machine == (CPU,) and command == "deploy"):
        return ()
    return tuple(device for device in chosen if device in machine) or machine[:1]


class Queue:
    """Looks after the jobs of an output folder in a thread of its own. `grace`: seconds between SIGTERM and SIGKILL."""

    def __init__(self, jobs: Jobs, grace: float):
        self._jobs = jobs
        self._grace = grace
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="queue", daemon=True)

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self) -> None:
        """End the thread; the jobs go on."""
        self._ended.set()
        self._wake.set()
        self._thread.join()

    def hurry(self) -> None:
        """Look at the jobs now."""
        self._wake.set()

    def _work(self) -> None:
        while not self._ended.is_set():
            try:
                self.advance()
            except (OSError, ValueError) as error:  # a full disk, a job folder removed or damaged by hand
                log.warning("the queue: %s", error)
            self._wake.wait(INTERVAL)
            self._wake.clear()

    def advance(self) -> None:
        """Start what can start, and kill what was stopped `grace` seconds ago."""
        jobs = self._jobs.open()
        taken = {device for job in jobs if job.state in ("starting", "running", "stopping") for device in _devices(job)}
        for job in reversed(jobs):
            if job.state == "stopping" and self._jobs.stopping_for(job) > self._grace:
                self._jobs.kill(job)
            if job.state != "queued" or self._jobs.lacks_secrets(job):
                continue
            if taken.isdisjoint(_devices(job)):
                self._jobs.start(job)
            taken |= _devices(job)  # a later job does not overtake this one on its devices


def _devices(job: Job) -> set[str]:
    return set(job.record["devices"])
