"""GOT-OCR2 as transformers has it: a page is one square of a fixed number of pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL.Image import Image
from torch import Tensor

from swift.core.errors import NotBuilt
from swift.models.families.base import Family, Size
from swift.plan.tuner import Parts

CONVOLUTIONS = 4
"""Patches a side that the last two convolutions of the tower and the projector make one piece of."""


class GotOcr2(Family):
    """`GotOcr2ForConditionalGeneration`."""

    parts = Parts(("model.vision_tower",), ("model.multi_modal_projector",), ("model.language_model",))

    @staticmethod
    def layers_read(config: Any) -> tuple[int | None, ...]:
        """The last."""
        return (None,)

    def __init__(self, config: Any, processor: Any, token_text: str):
        super().__init__(config, processor, token_text)
        if processor.crop_to_patches:
            raise NotBuilt(
                "GOT-OCR2 with crop_to_patches is not built yet",
                next="set crop_to_patches to false in preprocessor_config.json",
            )
        side = config.vision_config.image_size // config.vision_config.patch_size // CONVOLUTIONS
        self._pieces = side**2

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """The same for every page, between two marks."""
        return [f"<img>{self.token_text * self._pieces}</img>\n"] * len(sizes)

    def inputs(
        self, processor: Any, rows: Sequence[Sequence[Image]], ids: Tensor, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """Pixels. The processor also counts the patches of a page, which is 1; the model's `generate` refuses that."""
        given = super().inputs(processor, rows, ids, labels)
        return {name: value for name, value in given.items() if name == "pixel_values"}
