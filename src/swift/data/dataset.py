"""What a DataLoader takes: examples by index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class MapDataset(Protocol):
    """What a DataLoader needs: a length, and examples by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class ListDataset:
    """A few examples in memory."""

    def __init__(self, items: Sequence[dict[str, Any]], origins: Sequence[str] | None = None):
        self._items = items
        self._origins = origins
        longest = [max(len(ids) for name, ids in item.items() if name.endswith("input_ids")) for item in items]
        self.lengths = np.array(longest, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self._items[index], "row": index}

    @property
    def labels(self) -> NDArray[np.bool_]:
        """Whether each answer is desirable, for rows that say so."""
        return np.array([item["label"] for item in self._items], dtype=np.bool_)

    def usable(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The items of these numbers."""
        return [self[number] for number in numbers]

    def origin(self, index: int) -> str:
        """Where an item was read, as far as it is known here."""
        return self._origins[index] if self._origins else f"validation row {index + 1} of the stream"


def length_report(lengths: NDArray[np.int64]) -> str:
    """Mean, spread and range of the lengths, in the words of the 2.5 release."""
    return (
        f"Dataset Token Length: {lengths.mean():.6f}±{lengths.std():.6f}, "
        f"min={lengths.min():.6f}, max={lengths.max():.6f}, size={len(lengths)}"
    )
