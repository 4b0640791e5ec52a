"""Which rows of a data set are used, and on which side: sampling, repeating, splitting off validation rows.

The order is that of the 2.5 release for the same seed: a permutation of the rows from numpy's generators, validation
rows first, then the training rows, sampled from what is left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from swift.core.log import log

Indices = NDArray[np.int64]


def choose(rows: int, sample: int, test_ratio: float, seed: int, name: str) -> tuple[Indices, Indices]:
    """Indices of the training and the validation rows of a data set with `rows` rows.

    `sample` rows are used in all (-1: each once). For training, more than there are repeats the rows, the whole set
    first; a validation row is never used twice. The split takes `test_ratio` of the rows, at least one, but leaves
    at least one to train on.
    """
    random = np.random.RandomState(seed)
    everything = np.arange(rows, dtype=np.int64)
    wanted = rows if sample < 0 else sample
    if test_ratio >= 1:
        return everything[:0], take(everything, _at_most(wanted, rows, name), random)
    held_back = max(int(min(rows, wanted) * test_ratio), 1) if test_ratio > 0 else 0
    if held_back and held_back >= min(rows, wanted):
        log.warning("%s: %d row(s) leave none to split off for validation", name, min(rows, wanted))
        held_back = 0
    if not held_back:
        return take(everything, wanted, random), everything[:0]
    shuffled = np.random.default_rng(random.randint(0, np.iinfo(np.int32).max)).permutation(rows)
    return take(shuffled[held_back:], wanted - held_back, random), shuffled[:held_back]


def choose_val(rows: int, sample: int, seed: int, name: str) -> Indices:
    """Indices of the rows of a data set that is for validation only; none is used twice."""
    wanted = _at_most(rows if sample < 0 else sample, rows, name)
    return take(np.arange(rows, dtype=np.int64), wanted, np.random.RandomState(seed))


def take(indices: Indices, count: int, random: np.random.RandomState) -> Indices:
    """`count` of the indices: all of them as often as they fit, then a random choice of the rest."""
    if count == len(indices) or not len(indices):
        return indices
    whole, rest = divmod(count, len(indices))
    return np.concatenate([np.tile(indices, whole), indices[random.permutation(len(indices))[:rest]]])


def _at_most(wanted: int, rows: int, name: str) -> int:
    if wanted > rows:
        log.warning("%s: %d rows asked for validation, there are %d; none is used twice", name, wanted, rows)
    return min(wanted, rows)
