"""Ovis2 as transformers has it: squares of an image behind a small view, and marks that its grid can be read from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL.Image import Image
from torch import Tensor
from transformers.models.ovis2.image_processing_pil_ovis2 import get_min_tile_covering_grid, get_optimal_tiled_canvas

from swift.models.families.base import Family, Size
from swift.plan.tuner import Parts


class Ovis2(Family):
    """`Ovis2ForConditionalGeneration`, whose pieces and marks both take their embeddings from a table of images."""

    parts = Parts(("model.vision_tower",), ("model.visual_embeddings_table",), ("model.language_model",))

    def __init__(self, config: Any, processor: Any, token_text: str):
        super().__init__(config, processor, token_text)
        vision = config.vision_config
        side = -(-(vision.image_size // vision.patch_size) // vision.hidden_stride)
        self._square = token_text * side**2

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """The small view, then the squares row by row with marks between them, and a line break."""
        return [self._written(*self._grid(width, height)) for width, height in sizes]

    def _written(self, columns: int, rows: int) -> str:
        grid = "<IMG_ROW>".join(["<IMG_COL>".join([self._square] * columns)] * rows)
        return f"<IMG_START>{self._square}<IMG_GRID>{grid if rows * columns > 1 else ''}<IMG_END>\n"

    def _grid(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows of the squares that the processor cuts."""
        own = self._processor
        if not own.crop_to_patches or own.max_patches <= 1:
            return 1, 1
        if own.use_covering_area_grid:
            return get_min_tile_covering_grid((height, width), own.size["height"], own.max_patches)
        square = own.size["height"], own.size["width"]
        return get_optimal_tiled_canvas((height, width), square, own.min_patches, own.max_patches)

    def inputs(
        self, processor: Any, rows: Sequence[Sequence[Image]], ids: Tensor, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """`pixel_values` (squares and small views, 3, height, width)."""
        given = super().inputs(processor, rows, ids, labels)
        return {name: value for name, value in given.items() if name != "grids"}
