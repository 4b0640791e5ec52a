"""Rows with media, each looked at when it is asked for: whether what it shows can be decoded, and is as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swift.core.errors import SwiftError
from swift.core.log import once
from swift.data.eager import EncodedDataset
from swift.data.example_index import ExampleIndex
from swift.data.lazy import LazyDataset, changed
from swift.data.ledger import Entry, Ledger, enter_late
from swift.data.preprocess import Preprocessor, refusal
from swift.prompts.images import BadMedium, MediaTokens
from swift.prompts.types import Media


def rows_of(index: ExampleIndex, preprocess: Preprocessor, ledger: Ledger, *, lazy: bool) -> Rows:
    """The rows of a run, tokens of which were kept unless they are `lazy`."""
    rows = LazyDataset(index, preprocess) if lazy else EncodedDataset(index)
    images = None if preprocess.encoder is None else preprocess.encoder.images
    return rows if images is None else ShownRows(rows, images, ledger.path)


class ShownRows:
    """The items of `rows`, without those whose media break while they are decoded."""

    def __init__(self, rows: EncodedDataset | LazyDataset, images: MediaTokens, ledger: Path | None):
        """`ledger` is the file that rows are entered in whose media break."""
        self._rows, self._images, self._ledger = rows, images, ledger
        self._broken: dict[int, BadMedium] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises SwiftError for a row that is not what it was when the run began, and where no row's media can be
        decoded."""
        while (item := self._usable(index % len(self), "the row behind it is trained instead")) is None:
            index += 1
        return item

    def usable(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """The items of these numbers whose media can be decoded. Raises SwiftError as `[]` does, and where there are
        no others."""
        items = [self._usable(number, "those packed with it are trained without it") for number in numbers]
        return [item for item in items if item is not None]

    def _usable(self, index: int, instead: str) -> dict[str, Any] | None:
        """The item; None, which is said and entered, where its media break while they are decoded."""
        item = self._rows[index]
        try:
            for media in media_shown(item):
                self._images.check(media)
            self._require_as_it_was(index, item)
        except BadMedium as error:
            # Its head was whole when the rows were read; what lies behind shows only in decoding.
            self._leave_out(index, error, instead)
            return None
        return item

    def _require_as_it_was(self, index: int, item: Mapping[str, Any]) -> None:
        """Raise SwiftError where the tokens stand for media of another size, which came in the place of the first."""
        for name, media in item.items():
            if not name.endswith("media"):
                continue
            ids = item[f"{name.removesuffix('media')}input_ids"]
            for token, count in self._images.counts(media).items():
                if (found := ids.count(token)) != count:
                    why = f"it had {found} tokens for what it shows, now {count}"
                    raise changed(self.origin(index), why, next="leave media as they are while a run reads them")

    def _leave_out(self, index: int, error: BadMedium, instead: str) -> None:
        once(f"{self.origin(index)} cannot be used, {instead}: {error.one_line}")
        self._broken.setdefault(index, error)
        if self._ledger is not None:
            source, _, line = self.origin(index).rpartition(":")
            fault = refusal(error)
            enter_late(self._ledger, Entry(source, int(line), "dropped", fault.reason, fault.detail))
        if len(self._broken) == len(self):
            first, why = next(iter(self._broken.items()))
            raise SwiftError(
                "no row has media that can be decoded",
                where=self.origin(first),
                why=why.one_line,
                next="mend the files that are named, or choose other data",
            )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every item (of its longest sequence, for a pair)."""
        return self._rows.lengths

    @property
    def labels(self) -> NDArray[np.bool_]:
        """Whether each answer is desirable, for rows that say so."""
        return self._rows.labels

    def origin(self, index: int) -> str:
        """`file:line` of an item's row."""
        return self._rows.origin(index)

    def fields(self, index: int) -> dict[str, Any]:
        """The columns of an item's row, as they stand in its file."""
        return self._rows.fields(index)


Rows = EncodedDataset | LazyDataset | ShownRows
"""What items are asked of by their number."""


def media_shown(item: Mapping[str, Any]) -> list[Media]:
    """What an item shows; both answers of a pair mostly show the same."""
    media: list[Media] = []
    for name, value in item.items():
        if name.endswith("media") and value not in media:
            media.append(value)
    return media
