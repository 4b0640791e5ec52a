"""The lazy store: before training every row is encoded once to know its length and fate, and its tokens are let go.

They are made again when the row is asked for, so that memory holds a few numbers a row however large the data are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swift.core.errors import SwiftError
from swift.core.log import once
from swift.data.example_index import ExampleIndex
from swift.data.ledger import Entry, enter_late
from swift.data.preprocess import Preprocessor, refusal
from swift.prompts.bad_row import BadRow
from swift.prompts.images import BadMedium
from swift.prompts.types import Media


class LazyDataset:
    """Items as `EncodedDataset` has them, encoded on access."""

    def __init__(self, index: ExampleIndex, preprocess: Preprocessor, ledger: Path | None):
        """`ledger` is the file that rows are entered in whose media break while they are decoded."""
        self._index = index
        self._preprocess = preprocess
        self._ledger = ledger

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises SwiftError for a row that is not what it was when the run began."""
        for place in range(index, index + len(self)):
            item = self._usable(place % len(self), "the row behind it is trained instead")
            if item is not None:
                return item
        raise SwiftError("no row has media that can be decoded")

    def usable(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The items of these numbers whose media can be decoded. Raises SwiftError as `[]` does."""
        items = [self._usable(number, "those packed with it are trained without it") for number in numbers]
        return [item for item in items if item is not None]

    def _usable(self, index: int, instead: str) -> dict[str, Any] | None:
        """The item; None, which is said and entered, where its media break while they are decoded."""
        images = self._preprocess.encoder.images if self._preprocess.encoder is not None else None
        item = self._item(index)
        if images is None:
            return item
        try:
            for media in media_shown(item):
                images.check(media)
        except BadMedium as error:
            # Its head was whole when the rows were read; what lies behind shows only in decoding.
            self._leave_out(index, error, instead)
            return None
        return item

    def _leave_out(self, index: int, error: BadMedium, instead: str) -> None:
        once(f"{self.origin(index)} cannot be used, {instead}: {error}")
        if self._ledger is not None:
            source, _, line = self.origin(index).rpartition(":")
            fault = refusal(error)
            enter_late(self._ledger, Entry(source, int(line), "dropped", fault.reason, fault.detail))

    def _item(self, index: int) -> dict[str, Any]:
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

    def _changed(self, index: int, why: str) -> SwiftError:
        return SwiftError(
            "the row is not what it was when the run began",
            where=self.origin(index),
            why=why,
            next="leave the files of --dataset as they are while a run reads them, or use --lazy_tokenize false",
        )


def media_shown(item: Mapping[str, Any]) -> list[Media]:
    """What an item shows; both answers of a pair mostly show the same."""
    media: list[Media] = []
    for name, value in item.items():
        if name.endswith("media") and value not in media:
            media.append(value)
    return media
