"""What a model is given of the media in a batch of answers, beside their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from swift.models.families import MediaProcessor
from swift.prompts.types import IGNORED, Media
from swift.training.companion_row import missing


@dataclass(frozen=True)
class MediaInputs:
    """The media of sequences as keywords of one model."""

    images: MediaProcessor
    model: PreTrainedModel
    """It knows where tokens of images stand; asked for sequences that lie end to end."""
    companions: tuple[dict[str, Any], ...] = ()
    """What joins batches that show nothing (see `swift.training.companion_row`)."""

    def beside(self, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The companions of a batch."""
        return missing(self.companions, list(map(_media, items)))

    def padded(self, items: Sequence[dict[str, Any]], ids: Tensor) -> dict[str, Any]:
        """Of sequences that lie in rows `ids` (A, T) of their own."""
        labels = pad_sequence([torch.tensor(item["labels"]) for item in items], True, IGNORED)
        return self.images.inputs([_media(item) for item in items], ids, labels)

    def end_to_end(self, items: Sequence[dict[str, Any]], ids: Tensor, common: Sequence[int]) -> dict[str, Any]:
        """Of sequences in one row `ids` (1, T), each of which leaves out so many tokens that it has in common with the
        one before it, and with them all that it shows (see `shareable`)."""
        labels = [item["labels"][shared:] for item, shared in zip(items, common, strict=True)]
        lengths = list(map(len, labels))
        rows = [Media() if shared else _media(item) for item, shared in zip(items, common, strict=True)]
        trained = torch.tensor([label for own in labels for label in own])[None]
        given = self.images.inputs_end_to_end(self.model, rows, ids, lengths, trained)
        if any(common) and "position_ids" in given:
            _go_on(given["position_ids"], lengths, common)
        return given

    def shareable(self, chosen: dict[str, Any], rejected: dict[str, Any], length: int) -> bool:
        """Whether all that two answers show stands in the `length` tokens with which both begin, and nothing behind
        them is seen from there."""
        pieces, behind = (
            set(self.images.tokens.values()),
            [chosen["input_ids"][length], *rejected["input_ids"][length:]],
        )
        if _media(chosen) != _media(rejected) or not pieces.isdisjoint(behind):
            return False
        stretches = (self.images.family.both_ways(end["input_ids"], end["labels"]) for end in (chosen, rejected))
        return all(end <= length for each in stretches for _, end in each)

    def joined(self, prompt: dict[str, Any], other: dict[str, Any], end: int, start: int) -> Media:
        """What is shown by the tokens of `prompt` before `end`, and then by those of `other` from `start` on."""
        before = [shown for place, *shown in self.images.in_order(prompt["input_ids"], _media(prompt)) if place < end]
        behind = [shown for place, *shown in self.images.in_order(other["input_ids"], _media(other)) if place >= start]
        return Media.of_kinds([*before, *behind])


def _media(item: dict[str, Any]) -> Media:
    return item.get("media", Media())


def _go_on(places: Tensor, lengths: Sequence[int], common: Sequence[int]) -> None:
    """Move the places (1 + coordinates, 1, T) of sequences that go on after a beginning that lies before them.

    They were counted from 0, as text. The token that follows the beginning in the sequence before is where they start.
    """
    begin = before = 0
    for length, shared in zip(lengths, common, strict=True):
        if shared:
            places[:, :, begin : begin + length] += places[:, :, before + shared, None]
        before, begin = begin, begin + length
