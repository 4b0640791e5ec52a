"""Florence-2 as transformers has it: an encoder reads the picture and the question, a decoder writes the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swift.models.families.base import Family, Size
from swift.plan.tuner import Parts


class Florence2(Family):
    """`Florence2ForConditionalGeneration`."""

    parts = Parts(("model.vision_tower",), ("model.multi_modal_projector",), ("model.language_model",))
    lies_flat = False  # an encoder sees all of its row
    stands_first = True
    writes_special_tokens = True

    def __init__(self, config: Any, processor: Any, token_text: str):
        super().__init__(config, processor, token_text)
        text, vision = config.text_config, config.vision_config
        self.opening = (text.decoder_start_token_id, text.bos_token_id)
        square = processor.crop_size if processor.do_center_crop else processor.size
        height, width = square["height"], square["width"]
        for patch, stride, padding in zip(vision.patch_size, vision.patch_stride, vision.patch_padding, strict=True):
            height, width = ((side + 2 * padding - patch) // stride + 1 for side in (height, width))
        self._pieces = 1 + height * width

    def resized(self, size: Size) -> Size | None:
        """To one square."""
        own = self._processor
        square = own.size
        return (square["width"], square["height"]) if own.do_resize and "height" in square else None

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """One piece for the mean of the picture, and one for each place; ValueError for more than one image."""
        if len(sizes) > 1:
            raise ValueError("the model reads one image a row")
        return [self.token_text * self._pieces]
