"""Qwen2-VL and Qwen2.5-VL: images keep their shape, four patches are a token, and places in them are positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL.Image import Image
from torch import Tensor
from transformers import PreTrainedModel

from swift.plan.tuner import Parts


class Qwen2VL:
    """`Qwen2VLForConditionalGeneration` and `Qwen2_5_VLForConditionalGeneration`."""

    parts = Parts(("model.visual",), ("model.visual.merger",), ("model.language_model",))
    before, after = "<|vision_start|>", "<|vision_end|>"
    causal = True

    def __init__(self, config: Any, processor: Any):
        self.token = config.image_token_id
        self._processor = processor
        self._merged = processor.merge_size**2

    def count(self, width: int, height: int) -> int:
        """By the size that the processor gives it; ValueError beyond an aspect ratio of 200."""
        return self._processor.get_number_of_image_patches(height, width) // self._merged

    def inputs(self, processor: Any, images: Sequence[Image], ids: Tensor) -> dict[str, Tensor]:
        """`pixel_values` (patches, values), `image_grid_thw` (images, 3), `mm_token_type_ids` (B, T): 1 is an image."""
        if not images:
            return {}
        kinds = (ids == self.token).long()
        return {**processor(list(images), return_tensors="pt"), "mm_token_type_ids": kinds}

    def positions(self, model: PreTrainedModel, ids: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Time, row and column; behind an image text goes on after the largest of them."""
        inner: Any = model.base_model
        places, _ = inner.get_rope_index(ids, inputs["mm_token_type_ids"], image_grid_thw=inputs["image_grid_thw"])
        return places
