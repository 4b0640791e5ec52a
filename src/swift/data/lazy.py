"""The lazy store: before training every row is encoded once to know its length and fate, and its tokens are let go.

They are made again when the row is asked for, so that memory holds a few numbers a row however large the data are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swift.core.errors import SwiftError
from swift.data.example_index import ExampleIndex
from swift.data.preprocess import Preprocessor
from swift.prompts.bad_row import BadRow


class LazyDataset:
    """Items as `EncodedDataset` has them, encoded on access."""

    def __init__(self, index: ExampleIndex, preprocess: Preprocessor):
        self._index = index
        self._preprocess = preprocess

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises SwiftError for a row that is not what it was when the run began."""
        table, row, nth = self._index[index]
        try:
            (result,) = (outcome.result for outcome in self._preprocess(list(table.fetch(np.array([row])))))
        except OSError as error:
            raise self._changed(index, str(error)) from error
        if isinstance(result, BadRow):
            raise self._changed(index, str(result))
        number, within = table.shard[row]
        if result.tokens != table.shards[number].tokens[within]:
            raise self._changed(index, f"it had {table.shards[number].tokens[within]} tokens, now {result.tokens}")
        return {**result.examples[nth], "row": index}

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every item (of its longest sequence, for a pair)."""
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

    def usable(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The items of these numbers. Raises SwiftError as `[]` does."""
        return [self[number] for number in numbers]

    def _changed(self, index: int, why: str) -> SwiftError:
        return changed(
            self.origin(index),
            why,
            next="leave the files of --dataset as they are while a run reads them, or use --lazy_tokenize false",
        )


def changed(where: str, why: str, *, next: str) -> SwiftError:
    """What is said of a row that is another one than before training."""
    return SwiftError("the row is not what it was when the run began", where=where, why=why, next=next)
