"""From encoded rows to batches, and from a stream to one without an end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import PreTrainedModel

from swift.data.collator import flatten, pad, pad_apart
from swift.data.packing import media
from swift.models.families import MediaProcessor
from swift.prompts.types import Media
from swift.training.companion_row import companions_of, missing
from swift.training.objectives import Batch, Setting
from swift.training.shared_beginnings import flatten_shared, shares_beginnings


def build(setting: Setting) -> Collate:
    """The collator of rows that are conversations."""
    companions = companions_of(setting)
    return Collate(
        setting.flat, setting.pad_id, setting.images, setting.base, companions, share=shares_beginnings(setting)
    )


@dataclass(frozen=True)
class Collate:
    """Puts rows into one batch: end to end where the model keeps its attention inside sequences, padded otherwise."""

    flat: bool
    pad_id: int
    images: MediaProcessor | None = None
    """What makes pixels of the images of rows."""
    model: PreTrainedModel | None = None
    """The model that they are for, which knows where tokens of images stand; asked for rows that lie end to end."""
    companions: tuple[dict[str, Any], ...] = ()
    """What joins batches that show nothing (see `swift.training.companion_row`)."""
    share: bool = False
    """Whether what sequences begin with alike is computed once, where they lie end to end."""

    def __call__(self, items: list[dict[str, Any]]) -> Batch:
        """The batch, with the numbers of its rows under `rows` and the number of its items under `items`."""
        count = len(items)
        if self.companions:
            items = [*items, *missing(self.companions, [shown for item in items for shown in media(item)])]
        opening = () if self.images is None else self.images.family.opening
        if opening:
            batch = pad_apart(items, self.pad_id, opening)
        else:
            end_to_end = flatten_shared if self.share else flatten
            batch = end_to_end(items) if self.flat else pad(items, self.pad_id)
        if self.images is not None:
            batch |= self._of_media(self.images, [shown for item in items for shown in media(item)], batch)
        return {**batch, "items": count}

    def _of_media(self, images: MediaProcessor, rows: Sequence[Media], batch: Batch) -> Batch:
        ids, labels = batch["input_ids"], batch["labels"]
        if not self.flat:
            return images.inputs(rows, ids, labels)
        assert self.model is not None
        return images.inputs_end_to_end(self.model, rows, ids, batch["sequence_lengths"], labels)


@dataclass(frozen=True)
class MicroBatch:
    """Rows as they leave the DataLoader, before they are laid into passes; accelerate does not look into this class."""

    rows: list[dict[str, Any]]


def tokens_in(batch: Batch) -> int:
    """Tokens of a batch on the CPU, padding left out; those that are computed once for several rows count for each."""
    masks = [batch[name] for name in ("attention_mask", "decoder_attention_mask") if name in batch]
    if masks:
        return sum(int(mask.sum()) for mask in masks)
    return batch["input_ids"].numel() + sum(batch.get("prefix_lengths", ()))


def pinned(batch: Batch) -> Batch:
    """The batch in memory that a GPU reads by itself."""
    copies: Batch = {}
    for name, value in batch.items():
        nested = pinned(value) if isinstance(value, dict) else value
        copies[name] = nested.pin_memory() if isinstance(nested, Tensor) else nested
    return copies


class Endless(IterableDataset[dict[str, Any]]):
    """A stream that starts over when it ends, so that an optimizer step may reach from one pass into the next."""

    def __init__(self, stream: IterableDataset[dict[str, Any]]):
        self._stream = stream

    def __iter__(self) -> Iterator[dict[str, Any]]:
        anything = True
        while anything:
            anything = False
            for item in self._stream:
                anything = True
                yield item
