"""GLM-4V as transformers has it: images keep their shape, four patches are a token, places in them are positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL.Image import Image
from torch import Tensor
from transformers import PreTrainedModel

from swift.models.families.base import Family, Size
from swift.plan.tuner import Parts


class Glm4v(Family):
    """`Glm4vForConditionalGeneration`."""

    parts = Parts(("model.visual",), ("model.visual.merger",), ("model.language_model",))

    @staticmethod
    def blocks_read(config: Any) -> tuple[int, ...]:
        """The last."""
        return (config.vision_config.depth - 1,)

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """By the size that the processor gives an image; ValueError for a shape that it does not take."""
        merged = self._processor.merge_size**2
        counts = [self._processor.get_number_of_image_patches(height, width, {}) // merged for width, height in sizes]
        return [f"<|begin_of_image|>{self.token_text * count}<|end_of_image|>" for count in counts]

    def inputs(
        self, processor: Any, rows: Sequence[Sequence[Image]], ids: Tensor, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """`pixel_values` (patches, values), `image_grid_thw` (images, 3), `mm_token_type_ids` (B, T): 1 is an image."""
        given = super().inputs(processor, rows, ids, labels)
        return {**given, "mm_token_type_ids": (ids == self.token).long()} if given else {}

    def positions(
        self, model: PreTrainedModel, ids: Tensor, inputs: Mapping[str, Tensor], mask: Tensor | None = None
    ) -> Tensor | None:
        """Time, row and column; behind an image text goes on after the largest of them."""
        if "mm_token_type_ids" not in inputs:
            return None
        inner: Any = model.base_model
        kinds, grids = inputs["mm_token_type_ids"], inputs["image_grid_thw"]
        places, _ = inner.get_rope_index(ids, kinds, image_grid_thw=grids, attention_mask=mask)
        return places
