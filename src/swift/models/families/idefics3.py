"""Idefics3 and SmolVLM: an image is cut into a grid of squares whose places are written down, and a small view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL.Image import Image
from torch import Tensor

from swift.models.families.base import Family, Size
from swift.plan.tuner import Parts

EDGE = "<fake_token_around_image>"


class Idefics3(Family):
    """`Idefics3ForConditionalGeneration` and `SmolVLMForConditionalGeneration`."""

    parts = Parts(("model.vision_model",), ("model.connector",), ("model.text_model",))

    @staticmethod
    def layers_read(config: Any) -> tuple[int | None, ...]:
        """The last."""
        return (None,)

    def __init__(self, config: Any, processor: Any, token_text: str):
        super().__init__(config, processor, token_text)
        side = config.vision_config.image_size // config.vision_config.patch_size
        self._square = token_text * int(side**2 / config.scale_factor**2)

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """`<row_1_col_1>` before each square of the grid, `<global-img>` before the small view."""
        return [self._written(width, height) for width, height in sizes]

    def _written(self, width: int, height: int) -> str:
        _, rows, columns = self._processor.get_number_of_image_patches(height, width)
        grid = "".join(
            "".join(f"{EDGE}<row_{row}_col_{column}>{self._square}" for column in range(1, columns + 1)) + "\n"
            for row in range(1, rows + 1)
        )
        gap = "\n" if rows else ""
        return f"{grid}{gap}{EDGE}<global-img>{self._square}{EDGE}"

    def inputs(
        self, processor: Any, rows: Sequence[Sequence[Image]], ids: Tensor, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """`pixel_values` (1, squares, 3, height, width) and `pixel_attention_mask` (1, squares, height, width)."""
        images = [image for row in rows for image in row]
        return dict(processor([images], return_tensors="pt")) if images else {}
