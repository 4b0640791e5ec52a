"""Rotary embeddings that depend on how long the text is: the answer of one text must not depend on another's length."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from swift.models.context_window import rope_kinds, stated_length


class DynamicRope:
    """What a forward pass has to mind about the rotary embeddings of a model. Lengths are in tokens.

    "longrope" has one set of factors up to `original_max_position_embeddings` and another for longer texts. "dynamic"
    stretches with the longest text seen, and the module keeps that length until a short text comes. Keys that are
    cached keep the stretching they were made with, here as in `generate`.
    """

    def __init__(self, model: PreTrainedModel):
        kinds = rope_kinds(model.config).values()
        self._model = model
        self.borders = tuple(k["original_max_position_embeddings"] for k in kinds if k.get("rope_type") == "longrope")
        grows = any(kind.get("rope_type") == "dynamic" for kind in kinds)
        self._grows_from = stated_length(model.config) if grows else None

    def __bool__(self) -> bool:
        return bool(self.borders) or self._grows_from is not None

    def switches(self, start: int, stop: int) -> bool:
        """Whether a text of `stop` tokens takes other factors than its first `start` tokens did."""
        return any(start <= border < stop for border in self.borders)

    @torch.inference_mode()
    def settle(self, length: int) -> None:
        """Before a text of `length` tokens: undo what a longer one has stretched. Costs a pass over one token."""
        if self._grows_from is not None and length > self._grows_from:
            zero = torch.zeros(1, 1, dtype=torch.long, device=self._model.device)
            self._model(input_ids=zero, position_ids=zero, use_cache=False)
