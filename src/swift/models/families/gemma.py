"""PaliGemma and Gemma3: an image is one square, and its pieces see each other both ways."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from swift.core.errors import NotBuilt
from swift.models.families.base import Family, Size
from swift.plan.tuner import Parts
from swift.prompts.types import IGNORED


class PaliGemma(Family):
    """`PaliGemmaForConditionalGeneration`: the whole prompt sees itself both ways."""

    parts = Parts(("model.vision_tower",), ("model.multi_modal_projector",), ("model.language_model",))
    embedded = False

    @staticmethod
    def layers_read(config: Any) -> tuple[int | None, ...]:
        """The last."""
        return (None,)

    def __init__(self, config: Any, processor: Any, token_text: str):
        super().__init__(config, processor, token_text)
        self._pieces = (config.vision_config.image_size // config.vision_config.patch_size) ** 2

    def resized(self, size: Size) -> Size | None:
        """To one square."""
        square = self._processor.size
        return (square["width"], square["height"]) if self._processor.do_resize else None

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """The same for every image; a sequence begins behind it."""
        return [self.token_text * self._pieces + "<bos>"] * len(sizes)

    def inputs(
        self, processor: Any, rows: Sequence[Sequence[Image]], ids: Tensor, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """`pixel_values` (images, 3, height, width), `token_type_ids` (B, T): 1 sees only what stands before."""
        # A prompt behind an answer must not be seen from before that answer, which it has seen.
        kinds = torch.zeros_like(ids) if labels is None else ((labels != IGNORED).cumsum(1) > 0).long()
        return {**super().inputs(processor, rows, ids, labels), "token_type_ids": kinds}

    def both_ways(self, ids: Sequence[int], labels: Sequence[int]) -> list[tuple[int, int]]:
        """The prompt: everything before the first token that is trained."""
        return [(0, next((place for place, label in enumerate(labels) if label != IGNORED), len(labels)))]


class Gemma3(Family):
    """`Gemma3ForConditionalGeneration`: the pieces of an image see each other both ways."""

    parts = PaliGemma.parts
    embedded = False

    @staticmethod
    def layers_read(config: Any) -> tuple[int | None, ...]:
        """The last."""
        return (None,)

    def __init__(self, config: Any, processor: Any, token_text: str):
        super().__init__(config, processor, token_text)
        if processor.do_pan_and_scan:
            raise NotBuilt(
                "Gemma3 with do_pan_and_scan is not built yet",
                next="set do_pan_and_scan to false in preprocessor_config.json",
            )
        self._pieces = config.mm_tokens_per_image

    def resized(self, size: Size) -> Size | None:
        """To one square."""
        square = self._processor.size
        return (square["width"], square["height"]) if self._processor.do_resize else None

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """The same for every image."""
        return [f"\n\n<start_of_image>{self.token_text * self._pieces}<end_of_image>\n\n"] * len(sizes)

    def inputs(
        self, processor: Any, rows: Sequence[Sequence[Image]], ids: Tensor, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """`pixel_values` (images, 3, height, width), `token_type_ids` (B, T): 1 is a piece of an image."""
        pixels = super().inputs(processor, rows, ids, labels)
        given = {"pixel_values": pixels["pixel_values"]} if pixels else {}
        return {**given, "token_type_ids": (ids == self.token).long()}

    def both_ways(self, ids: Sequence[int], labels: Sequence[int]) -> list[tuple[int, int]]:
        """The pieces of each image."""
        runs = [list(run) for piece, run in groupby(range(len(ids)), lambda place: ids[place] == self.token) if piece]
        return [(run[0], run[-1] + 1) for run in runs]
