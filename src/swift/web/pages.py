"""Templates filled in: HTML from Jinja files, with the words of the language that the reader wants."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from swift.params.checkpoint_args import EARLIER, EARLIER_STEPS
from swift.params.chinese import command_zh
from swift.params.commands import COMMANDS
from swift.reports.chart import Chart, chart
from swift.reports.curves import main_curves, other_curves
from swift.reports.run_files import Run
from swift.web.form_page import FORMS
from swift.web.jobs import Job
from swift.web.words import Language, words

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]")
_LIVE = ("status", "numbers", "results", "curves", "more", "samples", "ledger", "log")
"""The parts of a job's page that change while it runs."""


def render(name: str, language: Language, **values: Any) -> str:
    """A page or a part of one."""
    texts = words(language)
    summaries = {name: command_zh(name) if language == "zh" else COMMANDS[name].summary for name in FORMS}
    return _TEMPLATES.get_template(name).render(t=texts, lang=language, forms=summaries, duration=duration, **values)


def live_parts(job: Job | None, run: Run | None, language: Language) -> dict[str, str]:
    """The changing parts of a page by the id of their element."""
    template = _TEMPLATES.get_template("live.html")
    values = {
        "t": words(language),
        "lang": language,
        "job": job,
        "run": run,
        "log_": "" if job is None else plain(job.log_tail()),
        "duration": duration,
        "curves_": [] if run is None else main_curves(run.series),
        "more_": [] if run is None else other_curves(run.series),
    }
    module = template.make_module(values)
    return {part: str(module.__dict__[part]()) for part in _LIVE}


def version(job: Job | None, run: Run | None) -> tuple[Any, ...]:
    """Another value whenever a part of the page may be another."""
    log = (job.folder / "log") if job is not None else None
    size = log.stat().st_size if log is not None and log.exists() else 0
    return (job and job.state, size, run and run.version, run and run.folder)


def compared(runs: Mapping[str, Run]) -> list[tuple[str, Chart]]:
    """One chart for each number that at least one of the runs has, a line for each run."""
    names = dict.fromkeys(name for run in runs.values() for name in run.series)
    first = [name for name in ("loss", "eval_loss", "acc", "eval_acc", "learning_rate", "grad_norm") if name in names]
    ordered = [*first, *(name for name in names if name not in first)]
    return [
        (name, chart(name, {title: run.series.get(name, []) for title, run in runs.items()}))
        for name in ordered
        if not re.search(r"runtime|per_second", name)
    ]


def differences(runs: Mapping[str, Run]) -> list[tuple[str, list[str]]]:
    """The settings in which runs differ, and their values."""
    places = ("output_dir", "logging_dir", "command_line", EARLIER, EARLIER_STEPS)
    names = dict.fromkeys(name for run in runs.values() for name in run.args if name not in places)
    rows = [(name, [str(run.args.get(name, "")) for run in runs.values()]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def plain(text: str) -> str:
    """A log without the colours and cursor movements of a terminal."""
    return _ANSI.sub("", text)


def duration(seconds: float) -> str:
    """`45s`, `12m 3s`, `2h 5m`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m {whole % 60}s" if whole < 3600 else f"{whole // 3600}h {whole % 3600 // 60}m"
