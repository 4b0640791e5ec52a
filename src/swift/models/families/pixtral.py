"""Pixtral as transformers has it: images keep their shape, and each row of patches ends in a token of its own."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import Any

from swift.models.families.base import Family, Size
from swift.plan.tuner import Parts


class Pixtral(Family):
    """`LlavaForConditionalGeneration` on a Pixtral tower."""

    parts = Parts(("model.vision_tower",), ("model.multi_modal_projector",), ("model.language_model",))

    def __init__(self, config: Any, processor: Any, token_text: str):
        super().__init__(config, processor, token_text)
        self._longest: int = processor.size["longest_edge"]
        self._patch: int = config.vision_config.patch_size

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """`[IMG_BREAK]` behind each row of pieces, `[IMG_END]` behind the last; ValueError for a line of an image."""
        return [self._written(*size) for size in sizes]

    def _written(self, width: int, height: int) -> str:
        ratio = max(width / self._longest, height / self._longest)
        if ratio > 1:
            width, height = floor(width / ratio), floor(height / ratio)
            if not width or not height:
                raise ValueError(f"nothing is left of it at {self._longest} pixels along the longer side")
        row = self.token_text * ceil(width / self._patch)
        return "[IMG_BREAK]".join([row] * ceil(height / self._patch)) + "[IMG_END]"
