"""What the server works on: folders, jobs, devices, and drafts of forms. Nothing of it is lost with the process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock

from swift.core.transaction import write_file
from swift.reports.run_files import Run, find_runs
from swift.web.jobs import Job, Jobs
from swift.web.paths import AllowedPaths
from swift.web.queue import Queue, devices_of_machine
from swift.web.words import Language

JOBS, DRAFTS = "jobs", "drafts"
GRACE = 120.0
"""Seconds that a stopped job has to save before it is killed."""


@dataclass(frozen=True)
class Studio:
    """One output folder and what is done there; commands run in `cwd`."""

    cwd: Path
    output: Path
    paths: AllowedPaths
    language: Language = "zh"
    grace: float = GRACE

    @cached_property
    def jobs(self) -> Jobs:
        return Jobs(self.output / JOBS, self.cwd)

    @cached_property
    def queue(self) -> Queue:
        return Queue(self.jobs, self.grace)

    @cached_property
    def _drafts(self) -> Lock:
        return Lock()

    @cached_property
    def devices(self) -> tuple[str, ...]:
        return devices_of_machine()

    def taken_devices(self) -> set[str]:
        """The devices of jobs that are not over."""
        return {device for job in self.jobs.open() for device in job.record["devices"]}

    def output_folders(self) -> list[Path]:
        """The output folder, and those outside of it that jobs wrote to."""
        results = {job.result for job in self.jobs.all()} - {None}
        outside = [path for path in results if path is not None and not path.is_relative_to(self.output)]
        return [self.output, *sorted(path for path in outside if path.is_dir() and path in self.paths)]

    def listed(self, limit: int) -> list[tuple[Job | None, Run | None]]:
        """Jobs and runs, the latest first: a job with the run it writes, and runs that were started elsewhere."""
        jobs = [job for job in self.jobs.all() if not job.dry][:limit]
        of_jobs = {job.result for job in jobs}
        runs = [run for folder in self.output_folders() for run in find_runs(folder)]
        rows: list[tuple[float, Job | None, Run | None]] = [
            (job.record["created"], job, None if job.result is None else Run(job.result)) for job in jobs
        ]
        rows += [(run.folder.stat().st_mtime, None, run) for run in runs if run.folder.resolve() not in of_jobs]
        rows.sort(key=lambda row: row[0], reverse=True)
        return [(job, run) for _, job, run in rows[:limit]]

    def draft(self, command: str) -> dict[str, str]:
        """What was last typed into the form of a command."""
        try:
            return json.loads(self._draft_file(command).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def keep_draft(self, command: str, texts: Mapping[str, str]) -> None:
        """Keep what is in the form now; secrets are never among it."""
        with self._drafts:  # two tabs may type at once
            self._draft_file(command).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_file(self._draft_file(command), json.dumps(dict(texts), ensure_ascii=False))

    def _draft_file(self, command: str) -> Path:
        return self.output / JOBS / DRAFTS / f"{command}.json"
