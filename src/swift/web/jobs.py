"""Jobs: command lines as child processes, kept as folders `jobs/ID/{argv.json, process.json, log, exit.json}`.

What is known of a job is read from its folder each time, so a server that is killed and started again knows as much.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from swift.core.job_folder import RESULT, VARIABLE
from swift.core.transaction import write_file
from swift.web.processes import alive, end, of_job
from swift.web.runner import ARGV, EXIT, LOG, PROCESS

State = Literal["queued", "starting", "running", "stopping", "done", "failed", "stopped", "lost"]
OVER: tuple[State, ...] = ("done", "failed", "stopped", "lost")
CLAIM, STOP = "claim", "stop.json"
START_SECONDS = 30.0
"""After this time a job whose process has not shown itself counts as lost."""
SAVED_EXIT = 75
"""How a training ends that was stopped and has saved."""
TRIALS_KEPT = 5
"""Dry runs that stay on disk."""


@dataclass(frozen=True)
class Job:
    """A job as its folder tells it now."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @cached_property
    def record(self) -> dict[str, Any]:
        """What was asked for: argv, cwd, time, devices, whether it is a dry run, the names of secrets it needs."""
        return json.loads((self.folder / ARGV).read_text(encoding="utf-8"))

    @property
    def words(self) -> list[str]:
        """The command line without the interpreter: `["sft", "--dataset", …]`."""
        return self.record["argv"][3:]

    @property
    def command(self) -> str:
        return self.words[0]

    @property
    def dry(self) -> bool:
        return bool(self.record["dry"])

    @property
    def line(self) -> str:
        """The command line to paste into a terminal."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.record["env"].items()]
        return " ".join([*settings, shlex.join(["swift", *self.words])])

    @cached_property
    def exit(self) -> dict[str, Any] | None:
        """How it ended: code and time."""
        return _json(self.folder / EXIT)

    @cached_property
    def processes(self) -> tuple[tuple[int, str], ...]:
        """Number and start time of the runner and of the command."""
        noted = _json(self.folder / PROCESS) or {}
        return tuple((noted[name]["pid"], noted[name]["started"]) for name in ("runner", "command") if name in noted)

    @cached_property
    def state(self) -> State:
        if self.exit is not None:
            if (self.folder / STOP).exists() or self.exit["code"] == SAVED_EXIT:
                return "stopped"
            return "done" if self.exit["code"] == 0 else "failed"
        if self.processes:
            if any(alive(*process) for process in self.processes):
                return "stopping" if (self.folder / STOP).exists() else "running"
            return "stopped" if (self.folder / STOP).exists() else "lost"
        if (self.folder / CLAIM).exists():
            return "starting" if time.time() - (self.folder / CLAIM).stat().st_mtime < START_SECONDS else "lost"
        return "stopped" if (self.folder / STOP).exists() else "queued"

    @property
    def over(self) -> bool:
        return self.state in OVER

    @property
    def result(self) -> Path | None:
        """The folder it writes to, once it has said so."""
        try:
            return Path((self.folder / RESULT).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    @property
    def seconds(self) -> float:
        """How long it has run, or ran."""
        try:
            began = (self.folder / CLAIM).stat().st_mtime
        except FileNotFoundError:
            return 0.0
        return max(0.0, (self.exit["time"] if self.exit else time.time()) - began)

    def log_tail(self, size: int = 48_000) -> str:
        """The end of the log; of a line that was drawn again and again its last state."""
        try:
            with (self.folder / LOG).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - size))
                text = file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


_children: list[subprocess.Popen[bytes]] = []
"""The runners that this process has started, to be reaped."""


class Jobs:
    """All jobs of an output folder."""

    def __init__(self, folder: Path, cwd: Path):
        self.folder = folder
        self._cwd = cwd
        self._secrets: dict[str, Mapping[str, str]] = {}
        """The secrets of queued jobs; nowhere but in memory."""
        self._over: set[str] = set()

    def all(self) -> list[Job]:
        """Every job, the newest first."""
        folders = sorted(self.folder.glob("*-*-*"), reverse=True)
        return [Job(folder) for folder in folders if (folder / ARGV).is_file()]

    def open(self) -> list[Job]:
        """The jobs that are not over, the newest first; those that are over are looked at once."""
        listed = [job for job in self.all() if job.id not in self._over]
        self._over |= {job.id for job in listed if job.over}
        return [job for job in listed if not job.over]

    def get(self, name: str) -> Job | None:
        """The job with this id."""
        folder = self.folder / name
        return Job(folder) if folder.parent == self.folder and (folder / ARGV).is_file() else None

    def add(
        self,
        words: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        secrets_of_job: Mapping[str, str] | None = None,
        devices: Sequence[str] = (),
        dry: bool = False,
    ) -> Job:
        """Write a job down; the queue starts it. `secrets_of_job` are environment variables that are not written."""
        now = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
        folder = self.folder / f"{stamp}-{words[0]}-{secrets.token_hex(3)}"
        folder.mkdir(parents=True, mode=0o700)
        record = {
            "argv": [sys.executable, "-m", "swift", *words],
            "cwd": str(self._cwd),
            "created": now,
            "env": dict(env or {}),
            "devices": list(devices),
            "dry": dry,
            "secrets": sorted(secrets_of_job or ()),
        }
        self._secrets[folder.name] = dict(secrets_of_job or {})
        write_file(folder / ARGV, json.dumps(record, ensure_ascii=False, indent=1))
        if dry:
            self._prune()
        return Job(folder)

    def lacks_secrets(self, job: Job) -> bool:
        """Whether a queued job needs secrets that a server before this one was given."""
        return not set(job.record["secrets"]) <= set(self._secrets.get(job.id, ()))

    def start(self, job: Job) -> bool:
        """Start a queued job; False when somebody else just did."""
        try:
            os.close(os.open(job.folder / CLAIM, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        environment = {**os.environ, **job.record["env"], **self._secrets.pop(job.id, {})}
        environment |= {VARIABLE: str(job.folder), "PYTHONUNBUFFERED": "1"}
        self.reap()
        with (job.folder / LOG).open("ab") as log:
            _children.append(
                subprocess.Popen(
                    [sys.executable, "-m", "swift.web.runner", str(job.folder)],
                    cwd=self._cwd,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
        return True

    def reap(self) -> int:
        """Let ended runners of this process go. -> how many are left."""
        _children[:] = [child for child in _children if child.poll() is None]
        return len(_children)

    def stop(self, job: Job) -> None:
        """Ask the command to end: SIGTERM, on which a training saves. A queued job is taken back."""
        if job.over:
            return
        write_file(job.folder / STOP, json.dumps({"time": time.time()}))
        for pid, started in job.processes[1:]:
            # The command alone: it passes the signal on to its ranks, and a second one would end them before they save.
            if alive(pid, started):
                os.kill(pid, signal.SIGTERM)

    def kill(self, job: Job) -> None:
        """End all processes of a job at once."""
        if not (job.folder / STOP).exists():
            write_file(job.folder / STOP, json.dumps({"time": time.time()}))
        runner = job.processes[0][0] if job.processes else None
        for process in of_job(job.folder, job.processes):
            if process.pid != runner:  # it is left to write down how the command ended
                end(process, signal.SIGKILL)

    def stopping_for(self, job: Job) -> float:
        """Seconds since a job was asked to stop."""
        asked = _json(job.folder / STOP)
        return time.time() - asked["time"] if asked else 0.0

    def remove(self, job: Job) -> bool:
        """Forget a job that is over: its log and its place in the list; what it wrote elsewhere stays."""
        if job.over:
            shutil.rmtree(job.folder, ignore_errors=True)
        return job.over

    def _prune(self) -> None:
        over = [job for job in self.all() if job.dry and job.over]
        for job in over[TRIALS_KEPT:]:
            self.remove(job)
