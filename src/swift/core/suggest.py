"""Did you mean …? The names nearest to a mistyped one."""

from __future__ import annotations

import re
from collections.abc import Iterable

ENOUGH = 0.58
"""Below this likeness a guess would be noise."""


def closest(name: str, candidates: Iterable[str], *, limit: int = 1) -> list[str]:
    """The candidates most like `name`, best first, or nothing when none is like it.

    Likeness joins three views: how many letters have to change (a swap of two neighbours counts once), which words the
    two share, and whether one is the beginning of the other.
    """
    ranked = sorted(((likeness(name, c), c) for c in dict.fromkeys(candidates)), key=lambda pair: (-pair[0], pair[1]))
    return [candidate for score, candidate in ranked[:limit] if score >= ENOUGH]


def likeness(left: str, right: str) -> float:
    """From 0 (nothing in common) to 1 (the same but for case and `-` or `_`)."""
    left, right = _plain(left), _plain(right)
    if left == right:
        return 1.0
    if not left or not right:
        return 0.0
    letters = 1 - distance(left, right) / max(len(left), len(right))
    words = _shared(left.split("_"), right.split("_"))
    score = max(letters, 0.45 * letters + 0.55 * words)
    if len(left) >= 3 and (right.startswith(left) or left.startswith(right)):
        score = max(score, 0.62 + 0.3 * min(len(left), len(right)) / max(len(left), len(right)))
    return min(score, 0.99)


def distance(left: str, right: str) -> int:
    """Letters to insert, delete, replace or swap with their neighbour (optimal string alignment)."""
    before: list[int] = []
    last = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        row = [i]
        for j, b in enumerate(right, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


def _plain(name: str) -> str:
    return re.sub(r"[-_./ ]+", "_", name.lower()).strip("_")


def _shared(left: list[str], right: list[str]) -> float:
    """Share of the letters that stand in words both names have (a word may miss or bend one letter)."""
    rest = list(right)
    common = 0.0
    for word in left:
        best = max(rest, key=lambda other: _same(word, other), default="")
        alike = _same(word, best) if best else 0.0
        if alike:
            rest.remove(best)
            common += alike * (len(word) + len(best))
    return common / (sum(map(len, left)) + sum(map(len, right)))


def _same(word: str, other: str) -> float:
    if word == other:
        return 1.0
    if min(len(word), len(other)) >= 3 and (word.startswith(other) or other.startswith(word)):
        return 0.85
    if min(len(word), len(other)) >= 4 and distance(word, other) <= 1 + (min(len(word), len(other)) >= 7):
        return 0.8
    return 0.0
