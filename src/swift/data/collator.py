"""Batches from examples: one row without padding, or rows padded to the longest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from swift.data.packing import segments, unpacked
from swift.prompts.types import IGNORED


def flatten(items: Sequence[dict[str, Any]], left_out: Sequence[int] = ()) -> dict[str, Any]:
    """All examples end to end in one row of T tokens, nothing padded.

    `input_ids`, `labels` and `position_ids` are (1, T) and int64; positions start at 0 in every sequence, so a packed
    item starts as often as it has `lengths`. `sequence_lengths` are those of all sequences, as numbers: attention needs
    them on the CPU. `loss_scale` (1, T) is there when an item has it. `predicted_at` (N) are the places before those
    that have a label. `rows` lists the rows.

    `left_out` are the first tokens, none of them trained, that each sequence has in common with one before it: they are
    not among its own, and become `prefix_lengths` where there are any.
    """
    lengths = tuple(length for item in items for length in segments(item))
    starts = left_out or [0] * len(lengths)
    places = [torch.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)]
    positions = torch.cat(places)[None]
    batch = _joined(items)
    if any(starts):
        batch["prefix_lengths"] = tuple(starts)
    at = _predicted_at(batch["labels"], positions != 0)
    return {**batch, "predicted_at": at, "position_ids": positions, "sequence_lengths": lengths}


def _joined(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    batch: dict[str, Any] = {
        "input_ids": _row([token for item in items for token in item["input_ids"]], torch.long),
        "labels": _row([token for item in items for token in item["labels"]], torch.long),
        "rows": rows(items),
    }
    if any("loss_scale" in item for item in items):
        batch["loss_scale"] = _row([weight for item in items for weight in _weights(item)], torch.float)
    return batch


def pad(items: Sequence[dict[str, Any]], pad_id: int, *, side: str = "right") -> dict[str, Any]:
    """Every sequence in a row of its own, all as long as the longest.

    `input_ids`, `labels`, `attention_mask` are (B, T); padding is `pad_id`, `IGNORED` and 0. `predicted_at` (N) are the
    places in B x T before those that have a label. `rows` lists the rows.
    """
    pieces = [piece for item in items for piece in unpacked(item)]
    width = max(len(piece["input_ids"]) for piece in pieces)

    def padded(values: list[list[Any]], fill: float, kind: torch.dtype) -> Tensor:
        tensor = torch.full((len(values), width), fill, dtype=kind)
        for number, value in enumerate(values):
            place = slice(width - len(value), width) if side == "left" else slice(0, len(value))
            tensor[number, place] = torch.tensor(value, dtype=kind)
        return tensor

    batch: dict[str, Any] = {
        "input_ids": padded([piece["input_ids"] for piece in pieces], pad_id, torch.long),
        "labels": padded([piece["labels"] for piece in pieces], IGNORED, torch.long),
        "attention_mask": padded([[1] * len(piece["input_ids"]) for piece in pieces], 0, torch.long),
        "rows": rows(items),
    }
    batch["predicted_at"] = _predicted_at(batch["labels"], torch.arange(width).expand(len(pieces), -1) != 0)
    if any("loss_scale" in piece for piece in pieces):
        batch["loss_scale"] = padded([_weights(piece) for piece in pieces], 0.0, torch.float)
    return batch


def pad_apart(items: Sequence[dict[str, Any]], pad_id: int, opening: Sequence[int]) -> dict[str, Any]:
    """Prompts for an encoder and their answers for a decoder, each side padded as `pad` does.

    An answer is all from the first trained token on. `input_ids` and `attention_mask` (B, T) are of the prompts;
    `decoder_input_ids`, `labels` (B, U) and all else of the answers behind `opening`, the first of which starts the
    decoder, while the others are trained.
    """
    prompts, answers = [], []
    for piece in (piece for item in items for piece in unpacked(item)):
        ids, labels = piece["input_ids"], piece["labels"]
        at = next((place for place, label in enumerate(labels) if label != IGNORED), len(ids))
        prompts.append({"input_ids": ids[:at], "labels": labels[:at]})
        answer = {"input_ids": [*opening, *ids[at:]], "labels": [IGNORED, *opening[1:], *labels[at:]]}
        if "loss_scale" in piece:
            answer["loss_scale"] = [1.0] * len(opening) + piece["loss_scale"][at:]
        answers.append(answer)
    encoder, decoder = pad(prompts, pad_id), pad(answers, pad_id)
    mask = {"decoder_attention_mask": decoder.pop("attention_mask")}
    decoder["decoder_input_ids"] = decoder.pop("input_ids")
    own = {"input_ids": encoder["input_ids"], "attention_mask": encoder["attention_mask"], "rows": rows(items)}
    return {**decoder, **mask, **own}


def _predicted_at(labels: Tensor, follows: Tensor) -> Tensor:
    """Which places of (B, T) are before a label, where `follows` says that a place goes on with the one before it.

    Found here on the CPU: a GPU would have to be waited for until it has counted them.
    """
    return ((labels != IGNORED) & follows).reshape(-1).nonzero()[:, 0] - 1


def rows(items: Sequence[dict[str, Any]]) -> list[int]:
    """The rows that an example came from, over all examples."""
    return [row for item in items for row in item.get("rows", [item["row"]] if "row" in item else [])]


def _weights(item: dict[str, Any]) -> list[float]:
    return item.get("loss_scale") or [1.0] * len(item["input_ids"])


def _row(values: list[Any], kind: torch.dtype) -> Tensor:
    return torch.tensor(values, dtype=kind)[None]
