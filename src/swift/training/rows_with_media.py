"""Whether rows with images or sounds may lie end to end in one row, tried on the model through the collator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swift.catalog.entries import MediaText
from swift.core.errors import SwiftError, first_line
from swift.models.families import MediaProcessor
from swift.models.families.samples import sample
from swift.models.processor_files import PREPROCESSOR
from swift.prompts.types import IGNORED, Media
from swift.training.batches import Collate
from swift.training.finite_weights import require_finite_weights
from swift.training.objectives import Batch
from swift.training.objectives.answer_log_probs import model_inputs as of_answers
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
    Raises CheckFailed for a weight that is not a number, and SwiftError for a processor of another model.
    """
    images = collate.images
    assert images is not None
    before = model.config.get_text_config()._attn_implementation
    if not images.family.lies_flat or before not in SWITCHED_FROM:
        return False
    rows = _rows(model, images)
    try:
        expected = _states(model, replace(collate, flat=False), rows)
    except (ValueError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise SwiftError(
            "the model cannot read what its media processor makes of two pictures or a sound",
            where=PREPROCESSOR,
            why=first_line(error),
            next=f"take {PREPROCESSOR} from the folder of the model itself, and see what --model_kwargs says",
        ) from error
    require_finite_weights(model, expected)
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


@contextmanager
def answering(model: PreTrainedModel, images: MediaProcessor | None) -> Iterator[None]:
    """With the attention that the model is served with, and back: that of flat rows is told by the batch which tokens
    see each other both ways, and does not read it off the mask of a prompt."""
    trained = model.config.get_text_config()._attn_implementation
    if images is None or trained is None or not trained.startswith(NAME):
        yield
        return
    model.set_attn_implementation({DECODER: "sdpa"})
    try:
        yield
    finally:
        model.set_attn_implementation({DECODER: trained})


def beginnings_agree(
    model: PreTrainedModel,
    images: MediaProcessor,
    apart: Callable[[list[dict[str, Any]]], Batch],
    shared: Callable[[list[dict[str, Any]]], Batch],
) -> bool:
    """Whether two answers about something that is shown see the same of it when they share it as when they do not.

    `apart` and `shared` make flat batches of pairs.
    """
    if model.config.get_text_config()._attn_implementation != NAME:
        return False
    text, shown = _text(model, images), sample(images.kinds, SIZES[0])
    prompt = [*text[:3], *_pieces(images, shown), *text[3:24]]
    pair: dict[str, Any] = {"row": 0}
    for end, answer in (("chosen", text[24:30]), ("rejected", text[31:35])):
        ids, labels = [*prompt, *answer], [*[IGNORED] * len(prompt), *answer]
        pair |= {f"{end}_input_ids": ids, f"{end}_labels": labels, f"{end}_media": shown}
    expected, found = (_states_at_answers(model, collate([pair])) for collate in (apart, shared))
    allowed = TOLERANCE if model.dtype == torch.float32 else HALF_TOLERANCE
    return bool((found - expected).abs().max() <= allowed * (1 + expected.abs().max()))


@torch.no_grad()
def _states_at_answers(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The decoder's last hidden states from which the N tokens of answers are predicted, (N, hidden size)."""
    inputs = {name: _moved(value, model) for name, value in of_answers(batch).items()}
    inner: Any = model.base_model
    with evaluating(model):
        return inner(**inputs).last_hidden_state.float()[0, batch["predicted_at"]]


def _text(model: PreTrainedModel, images: MediaProcessor) -> list[int]:
    """Tokens that stand for nothing shown."""
    embedding: Any = model.get_input_embeddings()
    vocabulary = len(embedding.weight)
    media = set(images.tokens.values())
    return [number for number in (place * 37 % vocabulary for place in range(64)) if number not in media]


def _rows(model: PreTrainedModel, images: MediaProcessor) -> list[dict[str, Any]]:
    """A row that shows something, a text, and another that shows something else, or the same sound."""
    text = _text(model, images)
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
