"""LLaVA 1.5: every image is resized to one square, and each of its patches is a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL.Image import Image
from torch import Tensor
from transformers import PreTrainedModel

from swift.core.errors import NotBuilt
from swift.plan.tuner import Parts

WITH_CLASS_TOKEN = ("clip_vision_model",)
TOWERS = (*WITH_CLASS_TOKEN, "siglip_vision_model")


class Llava:
    """`LlavaForConditionalGeneration` on a CLIP or SigLIP tower."""

    parts = Parts(("model.vision_tower",), ("model.multi_modal_projector",), ("model.language_model",))
    before, after = "", "\n"
    causal = True

    def __init__(self, config: Any, processor: Any):
        vision = config.vision_config
        if vision.model_type not in TOWERS:
            raise NotBuilt(f"LLaVA on a tower of the kind {vision.model_type} is not built yet")
        self.token = config.image_token_id
        shape = processor.crop_size if processor.do_center_crop else processor.size
        patches = (shape["height"] // vision.patch_size) * (shape["width"] // vision.patch_size)
        dropped = config.vision_feature_select_strategy == "default"
        self._count = patches + (vision.model_type in WITH_CLASS_TOKEN) - dropped

    def count(self, width: int, height: int) -> int:
        """The same for every image."""
        return self._count

    def inputs(self, processor: Any, images: Sequence[Image], ids: Tensor) -> dict[str, Tensor]:
        """`pixel_values` (images, 3, height, width)."""
        return dict(processor(list(images), return_tensors="pt")) if images else {}

    def positions(self, model: PreTrainedModel, ids: Tensor, inputs: Mapping[str, Tensor]) -> None:
        """Pieces of images stand one behind the other, as words do."""
