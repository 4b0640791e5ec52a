"""Which example of which row each item of a run is: what every store by index starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swift.data.preprocess import fields
from swift.data.row_table import Table
from swift.data.sample_and_split import Indices
from swift.data.shard import KEPT, TRUNCATED, Shard


class ExampleIndex:
    """The examples of the chosen rows of all tables, in order; a row that gives several has them side by side."""

    def __init__(self, tables: Sequence[Table], chosen: Sequence[Indices]):
        self._tables = tables
        items = [np.zeros((0, 3), np.int64)]
        for number, (table, rows) in enumerate(zip(tables, chosen, strict=True)):
            rows = rows[np.isin(table.fate[rows], (KEPT, TRUNCATED))]
            several = self._of_shards(table, rows, lambda shard: shard.examples)
            nth = np.arange(several.sum()) - np.repeat(np.cumsum(several) - several, several)
            items.append(np.stack([np.full_like(nth, number), np.repeat(rows, several), nth], axis=1))
        self._items = np.concatenate(items)
        """(N, 3): table, row of the table, which of the row's examples."""

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Table, int, int]:
        table, row, nth = self._items[index].tolist()
        return self._tables[table], row, nth

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every item (of its longest sequence, for a pair)."""
        return self._of_items(lambda shard: shard.lengths)

    def labels(self) -> NDArray[np.bool_]:
        """The label of every item, for rows that have one."""
        return self._of_items(lambda shard: shard.columns["label"].values).astype(bool)

    def _of_items(self, fact: Callable[[Shard], NDArray[Any]]) -> NDArray[np.int64]:
        """A fact of each example, which its shard knows."""
        values = np.zeros(len(self), dtype=np.int64)
        for number, table in enumerate(self._tables):
            mine = np.flatnonzero(self._items[:, 0] == number)
            rows, nth = self._items[mine, 1], self._items[mine, 2]
            examples = self._of_shards(table, rows, lambda shard: shard.first_example) + nth
            for shard in np.unique(table.shard[rows, 0]):
                here = table.shard[rows, 0] == shard
                values[mine[here]] = fact(table.shards[shard])[examples[here]]
        return values

    def origin(self, index: int) -> str:
        """`file:line` of an item's row."""
        table, row, _ = self[index]
        return table.origin(row)

    def fields(self, index: int) -> dict[str, Any]:
        """The columns of an item's row, read again."""
        table, row, _ = self[index]
        (again,) = table.fetch(np.array([row]))
        return fields(again)

    @staticmethod
    def _of_shards(table: Table, rows: Indices, fact: Callable[[Shard], NDArray[Any]]) -> NDArray[np.int64]:
        """A fact of each row, which its shard knows."""
        values = np.zeros(len(rows), dtype=np.int64)
        number, within = table.shard[rows].T
        for shard in np.unique(number):
            here = number == shard
            values[here] = fact(table.shards[shard])[within[here]]
        return values
