"""Run folders as the page shows them: numbers, checkpoints, ledger, samples, read from their files alone."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import psutil

from swift.core.transaction import UNFINISHED, fault

LOG, LEDGER, SAMPLES, ARGS, LOCK, REPORT, PAGE, ENVIRONMENT = (
    *("logging.jsonl", "data_ledger.jsonl", "samples.jsonl", "sft_args.json", ".lock"),
    *("report.json", "report.html", "environment.json"),
)
DEPTH = 4
"""Levels below an output folder at which runs are looked for: MODEL/vN-TIME, and folders of the user's own."""
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
PROGRESS = ("global_step/max_steps", "percentage", "elapsed_time", "remaining_time")
NO_CURVE = (
    *("epoch", "total_flos", "step", "train_runtime", "train_loss"),
    *("train_samples_per_second", "train_steps_per_second"),
)
Series = dict[str, list[tuple[int, float]]]


@dataclass
class _Growing:
    """A JSONL file as far as it was read."""

    offset: int = 0
    identity: tuple[int, int] = (0, 0)
    events: list[dict[str, Any]] = field(default_factory=list)
    series: Series = field(default_factory=dict)
    """The numbers of events that tell a step."""


_read: dict[Path, _Growing] = {}
_reading = Lock()
_KEPT = 64
"""Files whose events stay in memory."""


def events_of(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file, as far as they are written."""
    return _grown(path).events


def _grown(path: Path) -> _Growing:
    """The file as far as it is written: only what is new is read, and a line cut off waits for its end."""
    with _reading:
        return _read_on(path)


def _read_on(path: Path) -> _Growing:
    try:
        state = path.stat()
    except OSError:
        return _Growing()
    known = _read.pop(path, None)
    identity = (state.st_dev, state.st_ino)
    if known is None or known.identity != identity or state.st_size < known.offset:
        known = _Growing(identity=identity)
    _read[path] = known  # the latest last
    while len(_read) > _KEPT:
        del _read[next(iter(_read))]
    with path.open("rb") as file:
        file.seek(known.offset)
        for line in file:
            if not line.endswith(b"\n"):
                break
            known.offset += len(line)
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                known.events.append(event)
                _add_numbers(known.series, event)
    return known


def steps_of(events: Iterable[Mapping[str, Any]], name: str) -> dict[int, float]:
    """A number by the step it was logged at, in order; where a resumed run repeats a step, the first."""
    values: dict[int, float] = {}
    for event in events:
        step = str(event.get(PROGRESS[0], "")).partition("/")[0]
        if name in event and step.isdecimal():
            values.setdefault(int(step), float(event[name]))
    return dict(sorted(values.items()))


def _add_numbers(series: Series, event: dict[str, Any]) -> None:
    step = str(event.get(PROGRESS[0], "")).partition("/")[0]
    if not step.isdecimal():
        return
    for name, value in event.items():
        if name not in NO_CURVE and isinstance(value, int | float) and not isinstance(value, bool):
            series.setdefault(name, []).append((int(step), float(value)))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of a run."""

    path: Path
    step: int
    whole: bool
    marks: tuple[str, ...]
    """`best`, `last`, `merged`."""


@dataclass(frozen=True)
class Run:
    """A run folder as its files tell it now."""

    folder: Path

    @cached_property
    def args(self) -> dict[str, Any]:
        """What the run was started with; empty before it has noted it."""
        try:
            return json.loads((self.folder / ARGS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    @property
    def title(self) -> str:
        """`sft · qwen2-7b · lora`, or the folder's name."""
        names = ("command", "model_type", "rlhf_type" if self.args.get("command") == "rlhf" else "sft_type")
        words = [str(self.args[name]) for name in names if self.args.get(name)]
        return " · ".join(words) or self.folder.name

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """The log events of training steps."""
        return [event for event in events_of(self.folder / LOG) if PROGRESS[0] in event]

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The last line of the log, written when training has ended: the best and the last checkpoint."""
        events = events_of(self.folder / LOG)
        return events[-1] if events and "last_model_checkpoint" in events[-1] else {}

    @property
    def progress(self) -> tuple[int, int] | None:
        """Steps done and in all."""
        if not self.events:
            return None
        done, _, steps = str(self.events[-1][PROGRESS[0]]).partition("/")
        return (int(done), int(steps)) if done.isdecimal() and steps.isdecimal() else None

    @property
    def remaining(self) -> str:
        """The time that is left, as the run estimates it."""
        return str(self.events[-1].get("remaining_time", "")) if self.events else ""

    @property
    def latest(self) -> dict[str, float]:
        """The newest value of each number."""
        return {name: points[-1][1] for name, points in self.series.items()}

    @cached_property
    def series(self) -> Series:
        """Each number by name as (step, value)."""
        return _grown(self.folder / LOG).series

    @property
    def active(self) -> bool:
        """Whether a process of this machine has the run's lock open; its number alone may be another's by now."""
        try:
            text = (self.folder / LOCK).read_text(encoding="utf-8")
        except OSError:
            return False
        match = re.match(r"process (\d+) on (\S+):", text)
        if match is None or match[2] != socket.gethostname():
            return False
        try:
            return any(
                os.path.samefile(file.path, self.folder / LOCK) for file in psutil.Process(int(match[1])).open_files()
            )
        except psutil.AccessDenied:
            return True
        except (psutil.Error, OSError):
            return False

    @cached_property
    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints, the newest first; an unfinished one is not listed."""
        return sorted(self._checkpoints(), key=lambda each: (each.step, each.path.name), reverse=True)

    def _checkpoints(self) -> Iterator[Checkpoint]:
        ends = {name: Path(str(self.summary.get(f"{name}_model_checkpoint"))).name for name in ("best", "last")}
        for path in self.folder.glob("checkpoint-*"):
            match = CHECKPOINT.match(path.name)
            if match is None or not path.is_dir():
                continue
            marks = [name for name, checkpoint in ends.items() if checkpoint == path.name]
            merged = path.name.removeprefix(match[0])
            yield Checkpoint(
                path,
                int(match[1]),
                fault(path, hashes=False) is None,
                (*marks, *([merged.lstrip("-")] if merged else [])),
            )

    @property
    def ledger(self) -> dict[str, Any]:
        """The totals of the rows; empty before they are known."""
        lines = _last_lines(self.folder / LEDGER, 1)
        return lines[0].get("summary", {}) if lines else {}

    @property
    def samples(self) -> list[dict[str, Any]]:
        """Answers before and after training."""
        return events_of(self.folder / SAMPLES)[:8]

    @property
    def report(self) -> dict[str, Any]:
        """What an evaluation in this folder found."""
        try:
            return json.loads((self.folder / REPORT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    @property
    def has_page(self) -> bool:
        """Whether there is a report to read offline."""
        return (self.folder / PAGE).is_file()

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions and devices that the run was computed with; empty where it did not note them."""
        try:
            return json.loads((self.folder / ENVIRONMENT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    @property
    def version(self) -> tuple[Any, ...]:
        """Changes when something to show has changed."""
        files = (LOG, LEDGER, SAMPLES, ARGS, REPORT)
        return (*(_stamp(self.folder / name) for name in files), _stamp(self.folder))


def _stamp(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except OSError:
        return (0, 0)
    return (state.st_size, state.st_mtime_ns)


def _last_lines(path: Path, count: int, size: int = 65536) -> list[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            lines = file.read().split(b"\n")
        return [json.loads(line) for line in lines[:-1][-count:]]
    except (OSError, ValueError):
        return []


def find_runs(folder: Path) -> list[Run]:
    """The runs below an output folder, the latest first; whoever started them. Links are not followed."""
    runs: list[tuple[float, Path]] = []
    waiting = [(folder, 0)]
    while waiting:
        path, depth = waiting.pop()
        try:
            entries = list(os.scandir(path))
        except OSError:
            continue
        names = {entry.name for entry in entries}
        if LOG in names or (ARGS in names and not CHECKPOINT.match(path.name)):
            runs.append((path.stat().st_mtime, path))
            continue
        if depth < DEPTH:
            waiting += [(Path(entry.path), depth + 1) for entry in entries if _may_hold_runs(entry)]
    return [Run(path) for _, path in sorted(runs, reverse=True)]


def _may_hold_runs(entry: os.DirEntry[str]) -> bool:
    hidden = entry.name.startswith((".", UNFINISHED)) or CHECKPOINT.match(entry.name) is not None
    return not hidden and entry.is_dir(follow_symlinks=False)
