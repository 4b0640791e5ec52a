"""The eager store: all rows are tokens before training, in memory or mapped from the token cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swift.data.example_index import ExampleIndex


class EncodedDataset:
    """Examples that lie in shards, in the order of the run.

    Items are dicts of lists (`input_ids`, `labels`, …) with their own index as `row`.
    """

    def __init__(self, index: ExampleIndex):
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        table, row, nth = self._index[index]
        number, within = table.shard[row]
        shard = table.shards[number]
        return {**shard.example(shard.first_example[within] + nth), "row": index}

    def usable(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The items of these numbers."""
        return [self[number] for number in numbers]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every item (of its longest sequence, for a pair), without reading the tokens."""
        return self._index.lengths

    @property
    def labels(self) -> NDArray[np.bool_]:
        """Whether each answer is desirable, for rows that say so."""
        return self._index.labels()

    def origin(self, index: int) -> str:
        """`file:line` of an item's row."""
        return self._index.origin(index)

    def fields(self, index: int) -> dict[str, Any]:
        """The columns of an item's row, as they stand in its file."""
        return self._index.fields(index)
