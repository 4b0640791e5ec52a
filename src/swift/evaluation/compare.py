"""Two evaluations of the same questions, question by question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swift.core.errors import SwiftError
from swift.evaluation.metrics import mcnemar
from swift.evaluation.run_folder import Record, read_records
from swift.evaluation.text_table import aligned

LOWER_IS_BETTER = ("no_answer",)


@dataclass(frozen=True)
class Change:
    """One score over the questions that both runs have; the lists name the questions whose score changed."""

    suite: str
    metric: str
    n: int
    before: float
    now: float
    better: tuple[str, ...]
    worse: tuple[str, ...]
    p: float | None
    """Of the exact McNemar test, two-sided; None for scores between right and wrong."""


@dataclass(frozen=True)
class Comparison:
    """What changed since the run in `folder`, and how many questions only one of the two has."""

    folder: str
    only_now: int
    only_before: int
    changes: tuple[Change, ...]

    def table(self) -> str:
        """For people: a line for each score, in percent, and what was not compared."""
        cells = [("suite", "score", "n", "before", "now", "better", "worse", "p")]
        cells += [
            (
                each.suite,
                each.metric,
                str(each.n),
                f"{100 * each.before:.1f}",
                f"{100 * each.now:.1f}",
                str(len(each.better)),
                str(len(each.worse)),
                "" if each.p is None else f"{each.p:.3g}",
            )
            for each in self.changes
        ]
        left = f"\nnot compared: {self.only_now} questions are new, {self.only_before} are gone"
        return aligned(cells) + (left if self.only_now or self.only_before else "")


def compare(records: Sequence[Record], folder: Path) -> Comparison:
    """Compare with the run in `folder`. Raises SwiftError when it has none of the questions."""
    before = {_question(record): record for record in read_records(folder)}
    now = {_question(record): record for record in records}
    common = [(before[key], now[key]) for key in now if key in before]
    if not common:
        raise SwiftError(f"{folder} has none of these questions", where="--compare", next="compare equal suites")
    names = dict.fromkeys(
        (new["suite"], metric) for old, new in common for metric in new["scores"] if metric in old["scores"]
    )
    changes = tuple(_change(suite, metric, common) for suite, metric in names)
    return Comparison(str(folder), len(now) - len(common), len(before) - len(common), changes)


def _question(record: Record) -> tuple[str, str, str, str]:
    """A question is known by its text, wherever its file lies now; its number tells equal ones apart."""
    return record["suite"], record["subset"], str(record["id"]), record["question"]


def _change(suite: str, metric: str, common: Sequence[tuple[Record, Record]]) -> Change:
    pairs = [
        (new["origin"], old["scores"][metric], new["scores"][metric])
        for old, new in common
        if new["suite"] == suite and metric in new["scores"] and metric in old["scores"]
    ]
    more = tuple(origin for origin, old, new in pairs if new > old)
    less = tuple(origin for origin, old, new in pairs if new < old)
    better, worse = (less, more) if metric in LOWER_IS_BETTER else (more, less)
    binary = all(value in (0, 1) for _, old, new in pairs for value in (old, new))
    return Change(
        suite=suite,
        metric=metric,
        n=len(pairs),
        before=sum(old for _, old, _ in pairs) / len(pairs),
        now=sum(new for _, _, new in pairs) / len(pairs),
        better=better,
        worse=worse,
        p=mcnemar(len(better), len(worse)) if binary else None,
    )
