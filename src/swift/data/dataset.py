"""Examples by index, encoded already."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from swift.data.shard import Shard


class MapDataset(Protocol):
    """What a DataLoader needs: a length, and examples by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class EncodedDataset:
    """Examples that lie in shards, in the order of the run.

    Items are dicts of lists (`input_ids`, `labels`, …) with their own index as `row`.
    """

    def __init__(
        self, shards: Sequence[Shard], places: NDArray[np.int32], origins: NDArray[np.int64], names: list[str]
    ):
        """`places` (N, 2) is shard and example of each item; `origins` (N, 2) file and line, files being in `names`."""
        self.shards = shards
        self.places = places
        self._origins = origins
        self._names = names

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        shard, example = self.places[index]
        return {**self.shards[shard].example(example), "row": index}

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every item (of its longest sequence, for a pair), without reading the tokens."""
        lengths = np.zeros(len(self.places), dtype=np.int64)
        for number, shard in enumerate(self.shards):
            mine = self.places[:, 0] == number
            if mine.any():
                sizes = [column.lengths for name, column in shard.columns.items() if name.endswith("input_ids")]
                lengths[mine] = np.maximum.reduce(sizes)[self.places[mine, 1]]
        return lengths

    def origin(self, index: int) -> str:
        """`file:line` of an item's row."""
        file, line = self._origins[index]
        return f"{self._names[file]}:{line}"


class ListDataset:
    """A few examples in memory."""

    def __init__(self, items: Sequence[dict[str, Any]]):
        self._items = items
        self.lengths = np.array([len(item["input_ids"]) for item in items], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self._items[index], "row": index}

    def origin(self, index: int) -> str:
        """Where an item was read, as far as it is known here."""
        return f"validation row {index + 1} of the stream"


def length_report(lengths: NDArray[np.int64]) -> str:
    """Mean, spread and range of the lengths, in the words of the 2.5 release."""
    return (
        f"Dataset Token Length: {lengths.mean():.6f}±{lengths.std():.6f}, "
        f"min={lengths.min():.6f}, max={lengths.max():.6f}, size={len(lengths)}"
    )
