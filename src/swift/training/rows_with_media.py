"""Whether rows with images or sounds may lie end to end in one row, tried on the model through the collator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swift.catalog.entries import MediaText
from swift.models.families import MediaProcessor
from swift.models.families.samples import sample
from swift.prompts.types import IGNORED, Media
from swift.training.batches import Collate
from swift.training.objectives.sft import model_inputs
from swift.training.varlen_attention import NAME, evaluating

DECODER = "text_config"
"""Of the configurations in a multimodal model's, that of the decoder. Towers keep their own attention."""
SWITCHED_FROM = ("sdpa", "flash_attention_2")
SIZES = ((64, 48), (48, 100))
"""Of the two pictures."""
TOLERANCE, HALF_TOLERANCE = 1e-4, 0.05
"""Largest difference of a hidden state, as a share of the largest; for half precision rounding alone is as much."""


def keep_apart(model: PreTrainedModel, collate: Collate) -> bool:
    """Switch the decoder to attention inside sequences, and measure that flat rows give what padded ones give.

    `collate` is the flat one. False, with the model as it was, where they do not, or the family says so.
    """
    images = collate.images
    assert images is not None
    before = model.config.get_text_config()._attn_implementation
    if not images.family.lies_flat or before not in SWITCHED_FROM:
        return False
    rows = _rows(model, images)
    expected = _states(model, replace(collate, flat=False), rows)
    try:
        if before == "sdpa":  # the other one reads from the positions where rows begin
            model.set_attn_implementation({DECODER: NAME})
        found = _states(model, collate, rows)
    except (ValueError, TypeError):  # attention that cannot be switched, a forward of its own without further keywords
        found = torch.full_like(expected, torch.nan)
    allowed = TOLERANCE if model.dtype == torch.float32 else HALF_TOLERANCE
    if (found - expected).abs().max() <= allowed * (1 + expected.abs().max()):
        return True
    if before == "sdpa":
        model.set_attn_implementation({DECODER: before})
    return False


def _rows(model: PreTrainedModel, images: MediaProcessor) -> list[dict[str, Any]]:
    """A row that shows something, a text, and another that shows something else, or the same sound."""
    embedding: Any = model.get_input_embeddings()
    vocabulary = len(embedding.weight)
    media = set(images.tokens.values())
    text = [number for number in (place * 37 % vocabulary for place in range(64)) if number not in media]
    first, second = (sample(images.kinds, size) for size in SIZES)
    return [
        _row([*text[:3], *_pieces(images, first), *text[3:9]], first),
        _row(text[9:17], Media()),
        _row([*text[17:24], *_pieces(images, second), *text[24:29]], second),
    ]


def _pieces(images: MediaProcessor, media: Media) -> list[int]:
    ((kind, (written,)),) = images.written(media, MediaText()).items()
    token, number = images.family.tokens[kind]
    return [number] * written.count(token)


def _row(ids: list[int], media: Media) -> dict[str, Any]:
    return {"input_ids": ids, "labels": [*[IGNORED] * (len(ids) - 3), *ids[-3:]], "media": media}


@torch.no_grad()
def _states(model: PreTrainedModel, collate: Collate, rows: list[dict[str, Any]]) -> Tensor:
    """The decoder's last hidden states of all tokens, row after row, (T, hidden size)."""
    batch = collate(rows)
    inputs = {name: _moved(value, model) for name, value in model_inputs(batch).items()}
    inner: Any = model.base_model  # without its head: logits of all tokens would be large
    with evaluating(model):
        states = inner(**inputs).last_hidden_state.float()
    return states[0] if collate.flat else states[inputs["attention_mask"].bool()]


def _moved(value: Any, model: PreTrainedModel) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
