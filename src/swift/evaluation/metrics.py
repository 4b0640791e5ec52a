"""Scores of single answers, and what they say of all of them: means with intervals, differences with a test."""

from __future__ import annotations

import math
import re
import statistics
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swift.training.text_metrics import scores as overlap

Z = 1.959964
"""The normal quantile of a two-sided 95 % interval."""
CLOSING = ".。!！,，;；"
WIDE = "぀-ヿ㐀-鿿가-힯"
"""Scripts without spaces between words, as in a set of a regular expression."""


@dataclass(frozen=True)
class Mean:
    """The mean of `n` scores, and its 95 % interval; None where there is none."""

    n: int
    mean: float
    low: float | None
    high: float | None


def open_scores(answer: str, references: Sequence[str]) -> dict[str, float]:
    """exact, contains, rouge-1, rouge-2, rouge-l and bleu-4 of an answer, each by the reference that suits it best.

    `exact` looks past case, full width, white space and a closing full stop; `contains` wants whole words.
    """
    per_reference = [_against(answer, reference) for reference in references if reference.strip()]
    return {name: max(each[name] for each in per_reference) for name in per_reference[0]}


def mean_of(values: Sequence[float]) -> Mean:
    """The mean with Wilson's interval where every score is 0 or 1, else with that of the normal distribution."""
    n, mean = len(values), math.fsum(values) / len(values)
    if all(value in (0, 1) for value in values):
        centre = (mean + Z * Z / (2 * n)) / (1 + Z * Z / n)
        half = Z * math.sqrt(mean * (1 - mean) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    else:
        centre = mean
        half = Z * statistics.stdev(values) / math.sqrt(n) if n > 1 else 0.0
    low, high = (0.0, 1.0) if all(0 <= value <= 1 for value in values) else (-math.inf, math.inf)
    return Mean(n, mean, max(low, centre - half), min(high, centre + half))


def mcnemar(better: int, worse: int) -> float:
    """Two-sided p value of the exact McNemar test: `better` questions are right only now, `worse` only before."""
    n = better + worse
    tail = sum(math.comb(n, k) for k in range(min(better, worse) + 1))
    return min(1.0, 2 * tail / 2**n)


def normalized(text: str) -> str:
    """A text without what is no difference between two answers."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.rstrip(CLOSING).rstrip()


def _against(answer: str, reference: str) -> Mapping[str, float]:
    given, right = normalized(answer), normalized(reference)
    percent = overlap([(answer, reference)])
    return {
        "exact": float(given == right),
        "contains": float(holds(given, right)),
        **{name: value / 100 for name, value in percent.items()},
    }


def holds(text: str, part: str) -> bool:
    """Whether a text has a part that is no piece of a longer word or number; `12` is in `12元` and not in `120`."""
    if not part:
        return False
    left, right = (
        look.format(rf"[^\W{WIDE}]") if re.match(rf"[^\W{WIDE}]", edge) else ""
        for look, edge in (("(?<!{})", part[0]), ("(?!{})", part[-1]))
    )
    return re.search(left + re.escape(part) + right, text) is not None
