"""Did you mean …? The names nearest to a mistyped one."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable

ENOUGH = 0.58
"""Below this likeness a guess would be noise."""


def closest(name: str, candidates: Iterable[str], *, limit: int = 1, margin: float = 1.0) -> list[str]:
    """The candidates most like `name`, best first: at most `limit`, none further than `margin` behind the best.

    Likeness joins three views: how many letters have to change (a swap of two neighbours counts once), which words the
    two share, and whether one is the beginning of the other.
    """
    scores = {candidate: likeness(name, candidate) for candidate in candidates}
    ranked = sorted(scores, key=lambda candidate: (-scores[candidate], candidate))[:limit]
    return [c for c in ranked if scores[c] >= max(ENOUGH, scores[ranked[0]] - margin)]


def suggestion(name: str, candidates: Iterable[str], shown: str = "{}") -> str | None:
    """The question "did you mean …?" about the nearest candidate, written as `shown`; None when none is near."""
    nearest = closest(name, candidates)
    return f"did you mean {shown.format(nearest[0])}?" if nearest else None


def nearby(path: str | os.PathLike[str]) -> str | None:
    """For a path that is not there: the name most like it where it should be, or what lies there.

    For one that is of the other kind: what it holds, or the folder it is in.
    """
    if os.path.isdir(path):
        held = sorted(child for child in os.listdir(path) if not child.startswith("."))
        return "it is a folder, which " + (f"holds {', '.join(held[:5])}" if held else "is empty")
    if os.path.exists(path):
        return f"it is a file: its folder is {os.path.dirname(os.path.abspath(path))}"
    parent, name = os.path.split(os.path.abspath(path))
    folders_only = not os.path.isdir(parent)
    while not os.path.isdir(parent):
        parent, name = os.path.split(parent)
    names = sorted(child for child in os.listdir(parent) if not child.startswith("."))
    meant = [child for child in names if not folders_only or os.path.isdir(os.path.join(parent, child))]
    listing = f"{parent} holds {', '.join(names[:5])}" if names else f"{parent} is empty"
    return suggestion(name, meant, os.path.join(os.path.relpath(parent), "{}").removeprefix("./")) or listing


def likeness(left: str, right: str) -> float:
    """From 0 (nothing in common) to 1 (the same but for case and `-` or `_`)."""
    left, right = _plain(left), _plain(right)
    if left == right:
        return 1.0
    short, long = sorted((len(left), len(right)))
    if not short:
        return 0.0
    words = _shared(left.split("_"), right.split("_"))
    hopeless = _most_alike(left, right) < (0.5 if words else ENOUGH)
    letters = 0.0 if hopeless else 1 - distance(left, right) / long
    score = max(letters, 0.45 * letters + 0.55 * words, 0.92 * words)
    if len(left) >= 3 and (right.startswith(left) or left.startswith(right)):
        score = max(score, 0.62 + 0.3 * short / long)
    return min(score, 0.99)


def distance(left: str, right: str) -> int:
    """Letters to insert, delete, replace or swap with their neighbour (optimal string alignment)."""
    before: list[int] = []
    last = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        row = [i]
        for j, b in enumerate(right, 1):
            cost = last[j - 1] + (a != b)
            if last[j] < cost:
                cost = last[j] + 1
            if row[j - 1] < cost:
                cost = row[j - 1] + 1
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b and before[j - 2] < cost:
                cost = before[j - 2] + 1
            row.append(cost)
        before, last = last, row
    return last[-1]


def _most_alike(left: str, right: str) -> float:
    """An upper bound of `1 - distance / length` that is quick to find: the share of letters both have."""
    rest = right
    for letter in left:
        rest = rest.replace(letter, "", 1)
    return (len(right) - len(rest)) / max(len(left), len(right))


def _plain(name: str) -> str:
    for mark in "-./ ":
        name = name.replace(mark, "_")
    return name.strip("_").lower()


def _shared(left: list[str], right: list[str]) -> float:
    """Share of the letters that stand in words both names have (a word may miss or bend one letter)."""
    rest = list(right)
    common = 0.0
    for word in left:
        alike, best = 0.0, ""
        for other in rest:
            if (score := _same(word, other)) > alike:
                alike, best = score, other
        if alike:
            rest.remove(best)
            common += alike * (len(word) + len(best))
    return common / max(1, sum(map(len, left)) + sum(map(len, right)))


@functools.lru_cache(4096)
def _same(word: str, other: str) -> float:
    if word == other:
        return 1.0
    short, long = sorted((len(word), len(other)))
    if short >= 3 and (word.startswith(other) or other.startswith(word)):
        return 0.85
    slips = 1 + (short >= 7)
    if short >= 4 and long - short <= slips and _most_alike(word, other) * long >= long - slips:
        return 0.8 if distance(word, other) <= slips else 0.0
    return 0.0
