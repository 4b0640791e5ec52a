"""InternVL as transformers has it: square tiles of an image and a small view of the whole, all of equal length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from swift.models.families.base import Family, Size
from swift.plan.tuner import Parts


class InternVL(Family):
    """`InternVLForConditionalGeneration`."""

    parts = Parts(("model.vision_tower",), ("model.multi_modal_projector",), ("model.language_model",))
    settings: ClassVar = {"max_num": "max_patches"}

    def __init__(self, config: Any, processor: Any, token_text: str):
        super().__init__(config, processor, token_text)
        # Its processor class cuts tiles whatever preprocessor_config.json says.
        processor.crop_to_patches = True
        height, width = config.vision_config.image_size
        patch = config.vision_config.patch_size
        self._pieces = int(height // patch[0] * (width // patch[1]) * config.downsample_ratio**2)

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """The pieces of all tiles in a row between two marks, and a line break."""
        tiles = [self._processor.get_number_of_image_patches(height, width) for width, height in sizes]
        return [f"<img>{self.token_text * (self._pieces * count)}</img>\n" for count in tiles]

    def inputs(self, processor: Any, rows: Any, ids: Any, labels: Any) -> dict[str, Any]:
        """`pixel_values` (tiles, 3, height, width)."""
        pixels = super().inputs(processor, rows, ids, labels)
        return {"pixel_values": pixels["pixel_values"]} if pixels else {}
