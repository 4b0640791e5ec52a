"""Qwen2-VL, 2.5 and 3: images keep their shape, four patches are a token, and places in them are positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from PIL.Image import Image
from torch import Tensor
from transformers import PreTrainedModel

from swift.models.families.base import Family, Size
from swift.plan.tuner import Parts


class Qwen2VL(Family):
    """`Qwen2VLForConditionalGeneration` and `Qwen2_5_VLForConditionalGeneration`."""

    parts = Parts(("model.visual",), ("model.visual.merger",), ("model.language_model",))
    settings: ClassVar = {"min_pixels": "min_pixels", "max_pixels": "max_pixels"}

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """By the size that the processor gives an image; ValueError beyond an aspect ratio of 200."""
        merged = self._processor.merge_size**2
        counts = [self._processor.get_number_of_image_patches(height, width) // merged for width, height in sizes]
        return [f"<|vision_start|>{self.token_text * count}<|vision_end|>" for count in counts]

    def inputs(
        self, processor: Any, rows: Sequence[Sequence[Image]], ids: Tensor, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """`pixel_values` (patches, values), `image_grid_thw` (images, 3), `mm_token_type_ids` (B, T): 1 is an image."""
        pixels = super().inputs(processor, rows, ids, labels)
        return {**pixels, "mm_token_type_ids": (ids == self.token).long()} if pixels else {}

    def positions(self, model: PreTrainedModel, ids: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Time, row and column; behind an image text goes on after the largest of them."""
        inner: Any = model.base_model
        places, _ = inner.get_rope_index(ids, inputs["mm_token_type_ids"], image_grid_thw=inputs["image_grid_thw"])
        return places


class Qwen3VL(Qwen2VL):
    """`Qwen3VLForConditionalGeneration`: several layers of the tower are added to layers of the decoder."""

    parts = Parts(
        ("model.visual",), ("model.visual.merger", "model.visual.deepstack_merger_list"), ("model.language_model",)
    )
    embedded = False
