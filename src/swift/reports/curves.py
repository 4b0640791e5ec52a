"""Which charts a run has: first those that everybody looks at."""

from __future__ import annotations

import re

from swift.reports.chart import Chart, chart
from swift.reports.run_files import Series

FIRST = (("loss", ("loss", "eval_loss")), ("learning_rate", ("learning_rate",)))
SPEED, MEMORY = "tokens/s", "memory(GiB)"


def main_curves(series: Series) -> list[tuple[str, Chart]]:
    """The charts that everybody looks at: loss, rate, other scores of evaluation, speed, memory."""
    scores = {name: points for name, points in series.items() if name.startswith("eval_") and _is_score(name)}
    charts = [(title, {name: series[name] for name in names if name in series}) for title, names in FIRST]
    charts += [("eval", scores), (SPEED, _only(series, SPEED)), (MEMORY, _only(series, MEMORY))]
    return [(title, chart(title, lines)) for title, lines in charts if lines]


def other_curves(series: Series) -> list[tuple[str, Chart]]:
    """A chart for each number that the main ones leave out."""
    shown = {
        "loss",
        "eval_loss",
        "learning_rate",
        SPEED,
        MEMORY,
        *(name for name in series if name.startswith("eval_")),
    }
    return [(name, chart(name, {name: points})) for name, points in series.items() if name not in shown]


def _only(series: Series, name: str) -> Series:
    return {name: series[name]} if name in series else {}


def _is_score(name: str) -> bool:
    return name != "eval_loss" and not re.search(r"runtime|per_second|model_preparation", name)
