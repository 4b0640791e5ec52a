"""`report.html` of a training run: all that its folder tells, and what only its process knows, in one file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swift.core.transaction import write_file
from swift.params.checkpoint_args import command_lines
from swift.reports.chart import Chart
from swift.reports.curves import main_curves, other_curves
from swift.reports.document import document, facts, figure, table, text
from swift.reports.run_files import PAGE, Checkpoint, Run

FILES = (
    ("logging.jsonl", "every number of every logged step"),
    ("sft_args.json", "every flag with the value that it took"),
    ("training_args.json", "the same for transformers"),
    ("data_ledger.jsonl", "what became of every row"),
    ("samples.jsonl", "answers before and after"),
    ("environment.json", "versions and devices"),
)
SAMPLES = ("chosen", "rejected", "answer", "before", "after")
ORIGINS: Mapping[str, str] = {
    "cli": "command line",
    "file": "file of flags",
    "checkpoint": "checkpoint",
    "environment": "environment variable",
    "plan": "decided by model, rows and machine",
    "command": "default of the command",
    "default": "default",
}
"""Where a value may come from; the last two nobody chose."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the folder does not tell."""

    ending: str
    """How the run ended, in words."""
    whole: bool
    """Whether it ended by itself, with all its steps done."""
    plan: str
    """The summary that the run began with."""
    origins: Mapping[str, str]
    """Where the value of each flag comes from, by a key of `ORIGINS`."""
    warnings: Sequence[str]


def write_training_report(folder: Path, told: Told) -> Path:
    """Write the report into the run's folder. -> the file."""
    run = Run(folder)
    write_file(folder / PAGE, document(f"Training of {run.title}", _parts(run, told)))
    return folder / PAGE


def _parts(run: Run, told: Told) -> Iterator[str]:
    state = "good" if told.whole else "bad"
    yield f'<p class="{state}"><b>{text(told.ending)}</b>'
    done = "" if run.progress is None else f"step {run.progress[0]} of {run.progress[1]}"
    lines = command_lines(run.args)
    time = "time" if len(lines) < 2 else "time since it went on"
    yield facts({"steps": done, "folder": run.folder.resolve(), time: _elapsed(run)})
    yield from _commands(lines)
    yield f"<p>Whether it does: <code>swift verify {text(run.folder.resolve())}</code>"
    yield _warnings(told.warnings)
    yield from _numbers(run)
    yield _checkpoints(run.checkpoints)
    yield _samples(run.samples)
    yield _ledger(run.ledger)
    yield f"<h2>Plan</h2><pre>{text(told.plan)}</pre>"
    yield from _values(run.args, told.origins)
    yield "<h2>Environment</h2>" + facts(run.environment)
    there = [(name, what) for name, what in FILES if (run.folder / name).is_file()]
    yield "<h2>Files beside this one</h2>" + table(("file", "what"), there)


def _commands(lines: Sequence[str]) -> Iterator[str]:
    yield f"<h2>The command that does it again</h2><pre>{text(lines[0] if lines else '')}</pre>"
    for line in lines[1:]:
        yield f"<p>It was stopped, and went on with<pre>{text(line)}</pre>"


def _elapsed(run: Run) -> str:
    return str(run.events[-1].get("elapsed_time", "")) if run.events else ""


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return "<h2>Warnings</h2><p>none"
    return "<h2>Warnings</h2><ul>" + "".join(f'<li class="warn">{text(line)}' for line in warnings) + "</ul>"


def _numbers(run: Run) -> Iterator[str]:
    if not run.latest:
        yield "<h2>Curves</h2><p>no step was logged"
        return
    yield "<h2>Curves</h2>" + _charts(main_curves(run.series))
    rest = other_curves(run.series)
    if any(drawing for _, drawing in rest):
        yield f"<details><summary>{len(rest)} more</summary>{_charts(rest)}</details>"
    rows = (
        (name, *(f"{value:.6g}" for value in (points[0][1], min(v for _, v in points), points[-1][1])))
        for name, points in run.series.items()
    )
    yield f"<details><summary>as numbers</summary>{table(('', 'first', 'lowest', 'last'), rows)}</details>"


def _charts(charts: Sequence[tuple[str, Chart]]) -> str:
    return f'<div class="curves">{"".join(figure(title, drawing) for title, drawing in charts if drawing)}</div>'


def _checkpoints(checkpoints: Sequence[Checkpoint]) -> str:
    if not checkpoints:
        return "<h2>Checkpoints</h2><p>none was saved"
    rows = ((each.path.name, ", ".join(each.marks), "" if each.whole else "not whole") for each in checkpoints)
    try_it = f"<p>Try it: <code>swift infer --ckpt_dir {text(checkpoints[0].path.resolve())}</code>"
    return f"<h2>Checkpoints</h2>{table(('name', 'mark', ''), rows)}{try_it}"


def _samples(samples: Sequence[Mapping[str, Any]]) -> str:
    if not samples:
        return ""
    parts = ["<h2>Answers before and after</h2>"]
    for sample in samples:
        answers = {name: sample[name] for name in SAMPLES if sample.get(name)}
        shown = "".join(f"<p class=soft>{name}<pre>{text(answer)}</pre>" for name, answer in answers.items())
        prompt = str(sample.get("prompt", ""))
        parts.append(f"<details open><summary>{text(prompt[-160:])}</summary>{shown}</details>")
    return "".join(parts)


def _ledger(ledger: Mapping[str, Any]) -> str:
    if not ledger:
        return ""
    totals = {name: value for name, value in ledger.items() if not isinstance(value, dict | list)}
    tables = [facts(totals)]
    for name, value in ledger.items():
        if isinstance(value, dict) and value:
            tables.append(f"<p class=soft>{text(name)}{facts(value)}")
    return "<h2>Rows</h2>" + "".join(tables)


def _values(values: Mapping[str, Any], origins: Mapping[str, str]) -> Iterator[str]:
    by_origin: dict[str, list[tuple[str, Any, str]]] = {name: [] for name in ORIGINS}
    for name, value in values.items():
        origin = origins.get(name, "plan")
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        by_origin[origin].append((name, shown, ORIGINS[origin]))
    unchosen = ("command", "default")
    chosen = [row for origin, rows in by_origin.items() if origin not in unchosen for row in rows]
    head = ("flag", "value", "origin")
    yield table(head, chosen)
    rest = [row for origin in unchosen for row in by_origin[origin]]
    yield f"<details><summary>{len(rest)} defaults</summary>{table(head, rest)}</details>"
