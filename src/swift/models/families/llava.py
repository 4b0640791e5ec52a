"""LLaVA 1.5: every image is resized to one square, and each of its patches is a token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swift.core.errors import NotBuilt
from swift.models.families.base import Family, Size
from swift.plan.tuner import Parts

WITH_CLASS_TOKEN = ("clip_vision_model",)
TOWERS = (*WITH_CLASS_TOKEN, "siglip_vision_model")


def stated_layers(config: Any) -> tuple[int, ...]:
    """The layers that `vision_feature_layer` names."""
    layers = config.vision_feature_layer
    return (layers,) if isinstance(layers, int) else tuple(layers)


class Llava(Family):
    """`LlavaForConditionalGeneration` on a CLIP or SigLIP tower."""

    parts = Parts(("model.vision_tower",), ("model.multi_modal_projector",), ("model.language_model",))

    @staticmethod
    def layers_read(config: Any) -> tuple[int | None, ...]:
        """Those that the configuration names."""
        return stated_layers(config)

    def __init__(self, config: Any, processor: Any, token_text: str):
        super().__init__(config, processor, token_text)
        vision = config.vision_config
        if vision.model_type not in TOWERS:
            raise NotBuilt(
                f"LLaVA on a tower of the kind {vision.model_type} is not built yet",
                next=f"use one on {' or '.join(TOWERS)}",
            )
        shape = processor.crop_size if processor.do_center_crop else processor.size
        if "height" not in shape:
            raise NotBuilt(
                "LLaVA whose images keep their shape is not built",
                next="set do_center_crop to true in preprocessor_config.json, or size to a height and a width",
            )
        patches = (shape["height"] // vision.patch_size) * (shape["width"] // vision.patch_size)
        dropped = config.vision_feature_select_strategy == "default"
        self._count = patches + (vision.model_type in WITH_CLASS_TOKEN) - dropped

    def resized(self, size: Size) -> Size | None:
        """The shorter side to a fixed length; a square is cut out of that."""
        edge = self._processor.size.get("shortest_edge")
        if not self._processor.do_resize or edge is None or "longest_edge" in self._processor.size:
            return None
        long = int(edge * max(size) / min(size))
        return (edge, long) if size[0] <= size[1] else (long, edge)

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """The same for every image."""
        return [self.token_text * self._count + "\n"] * len(sizes)
