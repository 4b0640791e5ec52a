"""ROUGE and BLEU of a generated answer against the row's own, in percent.

Words are runs of letters and digits; each Chinese, Japanese or Korean character is a word of its own.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

WORD = re.compile(r"[぀-ヿ㐀-鿿가-힯]|[^\W぀-ヿ㐀-鿿가-힯]+")


def scores(pairs: Iterable[tuple[str, str]]) -> dict[str, float]:
    """Means over (generated, expected) pairs: `rouge-1`, `rouge-2`, `rouge-l` (F1) and `bleu-4`."""
    rows = [_score(words(candidate), words(reference)) for candidate, reference in pairs]
    return {name: round(sum(row[name] for row in rows) / len(rows), 6) for name in rows[0]} if rows else {}


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return WORD.findall(text.lower())


def _score(candidate: Sequence[str], reference: Sequence[str]) -> dict[str, float]:
    return {
        "rouge-1": 100 * _f1(_overlap(candidate, reference, 1), len(candidate), len(reference)),
        "rouge-2": 100 * _f1(_overlap(candidate, reference, 2), len(candidate) - 1, len(reference) - 1),
        "rouge-l": 100 * _f1(_longest_common(candidate, reference), len(candidate), len(reference)),
        "bleu-4": 100 * bleu(candidate, reference),
    }


def bleu(candidate: Sequence[str], reference: Sequence[str]) -> float:
    """Sentence BLEU with up to 4 orders, as many as the answer is long; an order without a match counts half a one."""
    if not candidate or not reference:
        return 0.0
    orders = range(1, min(4, len(candidate)) + 1)
    if not _overlap(candidate, reference, 1):
        return 0.0
    logs = [math.log((_overlap(candidate, reference, n) or 0.5) / (len(candidate) - n + 1)) for n in orders]
    brevity = min(0.0, 1 - len(reference) / len(candidate))
    return math.exp(brevity + sum(logs) / len(logs))


def _overlap(candidate: Sequence[str], reference: Sequence[str], n: int) -> int:
    return (_ngrams(candidate, n) & _ngrams(reference, n)).total()


def _ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def _longest_common(candidate: Sequence[str], reference: Sequence[str]) -> int:
    row = [0] * (len(reference) + 1)
    for word in candidate:
        before = row
        row = [0]
        for j, other in enumerate(reference):
            row.append(before[j] + 1 if word == other else max(before[j + 1], row[j]))
    return row[-1]


def _f1(common: int, candidate: int, reference: int) -> float:
    return 2 * common / (candidate + reference) if common and candidate > 0 and reference > 0 else 0.0
