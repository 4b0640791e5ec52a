"""Packing: several examples share a sequence of `capacity` tokens, each exactly once, by best fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swift.data.shown_rows import Rows
from swift.prompts.types import Media


def best_fit(lengths: Sequence[int] | NDArray[np.int64], capacity: int) -> list[list[int]]:
    """Bins of indices whose lengths add up to at most `capacity`, longest examples placed first, each in the fullest
    bin that still takes it. An example longer than `capacity` has a bin of its own.

    Open bins are kept by their free space; the bits of one integer tell which spaces there are, so that finding the
    best bin costs the same however many bins are open.
    """
    bins: list[list[int]] = []
    by_space: dict[int, list[int]] = {}
    spaces = 0
    for index in sorted(range(len(lengths)), key=lambda number: -int(lengths[number])):
        length = int(lengths[index])
        fitting = spaces >> length
        if fitting and length:
            space = length + (fitting & -fitting).bit_length() - 1
            number = by_space[space].pop()
            if not by_space[space]:
                spaces &= ~(1 << space)
            bins[number].append(index)
        else:
            space, number = max(capacity, length), len(bins)
            bins.append([index])
        left = space - length
        if left:
            by_space.setdefault(left, []).append(number)
            spaces |= 1 << left
    return bins


def fill_rate(lengths: Sequence[int] | NDArray[np.int64], bins: Sequence[Sequence[int]], capacity: int) -> float:
    """Share of the sequences' places that hold a token."""
    return sum(int(length) for length in lengths) / (len(bins) * capacity) if bins else 0.0


def join(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several examples end to end; `lengths` says where each ends and `rows` whose they are.

    Where one has `media`, the sequence has a list of those of each.
    """
    packed: dict[str, Any] = {
        "input_ids": [token for item in items for token in item["input_ids"]],
        "labels": [label for item in items for label in item["labels"]],
        "lengths": [len(item["input_ids"]) for item in items],
        "rows": [item["row"] for item in items],
    }
    if any("loss_scale" in item for item in items):
        packed["loss_scale"] = [
            weight for item in items for weight in item.get("loss_scale") or [1.0] * len(item["input_ids"])
        ]
    if any("media" in item for item in items):
        packed["media"] = [item.get("media", Media()) for item in items]
    return packed


def segments(item: Mapping[str, Any]) -> list[int]:
    """Lengths of the sequences in an item: several in a packed one."""
    return item.get("lengths") or [len(item["input_ids"])]


def media(item: Mapping[str, Any]) -> list[Media]:
    """What each sequence in an item shows."""
    shown = item.get("media", Media())
    return shown if isinstance(shown, list) else [shown] * len(segments(item))


def unpacked(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sequences of an item as items of their own."""
    if "lengths" not in item:
        return [dict(item)]
    pieces, start = [], 0
    for length, shown in zip(item["lengths"], media(item), strict=True):
        place = slice(start, start + length)
        own = {name: item[name][place] for name in ("input_ids", "labels", "loss_scale") if name in item}
        pieces.append({**own, "media": shown} if shown.any else own)
        start += length
    return pieces


class PackedDataset:
    """The examples of a data set, packed. Bins stand in the order of their first row."""

    def __init__(self, examples: Rows, capacity: int):
        self.examples = examples
        self.capacity = capacity
        self.bins = [sorted(bin_) for bin_ in best_fit(examples.lengths, capacity)]
        self.bins.sort(key=lambda bin_: bin_[0])

    def __len__(self) -> int:
        return len(self.bins)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises SwiftError where no sequence has a row that can be used."""
        while not (items := self.examples.usable(self.bins[index % len(self)])):
            index += 1
        return join(items)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sequence."""
        of_examples = self.examples.lengths
        return np.array([of_examples[bin_].sum() for bin_ in self.bins], dtype=np.int64)

    @property
    def fill(self) -> float:
        """Share of the sequences' places that hold a token."""
        return fill_rate(self.examples.lengths, self.bins, self.capacity)

    def origin(self, index: int) -> str:
        """`file:line` of the rows in a sequence."""
        return ", ".join(self.examples.origin(number) for number in self.bins[index])


def pack_groups(items: Sequence[dict[str, Any]], capacity: int) -> list[list[dict[str, Any]]]:
    """Groups of items to join, in the order of their first item."""
    bins = sorted(sorted(bin_) for bin_ in best_fit([len(item["input_ids"]) for item in items], capacity))
    return [[items[number] for number in bin_] for bin_ in bins]
