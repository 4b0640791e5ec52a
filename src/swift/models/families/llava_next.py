"""LLaVA-NeXT and LLaVA-OneVision: an image is one small view and tiles of a large one, whose rows end in a newline."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

from PIL.Image import Image
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution

from swift.core.errors import NotBuilt
from swift.models.families.base import Family, Size
from swift.models.families.llava import TOWERS, WITH_CLASS_TOKEN
from swift.plan.tuner import Parts

PARTS = Parts(
    ("model.vision_tower",), ("model.multi_modal_projector", "model.image_newline"), ("model.language_model",)
)


class LlavaNext(Family):
    """`LlavaNextForConditionalGeneration` on a CLIP or SigLIP tower."""

    parts = PARTS

    def __init__(self, config: Any, processor: Any, token_text: str):
        super().__init__(config, processor, token_text)
        vision = config.vision_config
        if vision.model_type not in TOWERS:
            raise NotBuilt(f"LLaVA-NeXT on a tower of the kind {vision.model_type} is not built yet")
        shape = processor.crop_size
        self._tile = shape["height"], shape["width"]
        self._patches = shape["height"] // vision.patch_size, shape["width"] // vision.patch_size
        dropped = config.vision_feature_select_strategy == "default"
        self._extra = (vision.model_type in WITH_CLASS_TOKEN) - dropped

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """The pieces of both views, and a line break as in LLaVA."""
        return [self.token_text * self._count(*size) + "\n" for size in sizes]

    def _count(self, width: int, height: int) -> int:
        rows, columns = self._large_view(width, height)
        return self._patches[0] * self._patches[1] + self._extra + rows * (columns + 1)

    def _large_view(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of patches of the large view that show the image and not the padding around it."""
        canvas = select_best_resolution((height, width), self._processor.image_grid_pinpoints)
        rows = canvas[0] // self._tile[0] * self._patches[0]
        columns = canvas[1] // self._tile[1] * self._patches[1]
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        return rows, columns


class LlavaOnevision(LlavaNext):
    """`LlavaOnevisionForConditionalGeneration`: a large view is made smaller again, and several images have none."""

    parts = PARTS

    def __init__(self, config: Any, processor: Any, token_text: str):
        Family.__init__(self, config, processor, token_text)
        vision = config.vision_config
        if config.vision_feature_select_strategy != "full":
            raise NotBuilt("LLaVA-OneVision is built for vision_feature_select_strategy full")
        side = vision.image_size // vision.patch_size
        self._tile, self._patches, self._extra = (vision.image_size,) * 2, (side, side), 0
        self._most = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """Both views of a single image; the small views of several, with one newline each."""
        if len(sizes) == 1:
            return super().written(sizes)
        return [self.token_text * (self._patches[0] * self._patches[1] + 1) + "\n"] * len(sizes)

    def _large_view(self, width: int, height: int) -> tuple[int, int]:
        rows, columns = super()._large_view(width, height)
        ratio = sqrt(rows * columns / (self._most * self._patches[0] ** 2))
        return (int(rows // ratio), int(columns // ratio)) if ratio > 1.1 else (rows, columns)

    def inputs(
        self, processor: Any, rows: Sequence[Sequence[Image]], ids: Tensor, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """`pixel_values` (images, tiles, 3, height, width), `image_sizes` (images, 2), `batch_num_images` (rows)."""
        nested = [list(row) for row in rows if row]
        return dict(processor(nested, return_tensors="pt")) if nested else {}
