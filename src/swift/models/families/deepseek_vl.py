"""DeepSeek-VL and Janus as transformers has them: every image is one square with a fixed number of pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swift.models.families.base import Family, Size
from swift.plan.tuner import Parts


class DeepseekVL(Family):
    """`DeepseekVLForConditionalGeneration`."""

    parts = Parts(("model.vision_model",), ("model.aligner",), ("model.language_model",))

    @staticmethod
    def layers_read(config: Any) -> tuple[int | None, ...]:
        """The last."""
        return (None,)

    def __init__(self, config: Any, processor: Any, token_text: str):
        super().__init__(config, processor, token_text)
        vision = config.vision_config
        self._pieces = (vision.image_size // vision.patch_size) ** 2

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """The same for every image."""
        return [self.token_text * self._pieces] * len(sizes)


class Janus(DeepseekVL):
    """`JanusForConditionalGeneration`, which sees images; what draws them is left alone like the tower."""

    parts = Parts(
        (
            *("model.vision_model", "model.vqmodel"),
            *("model.generation_embeddings", "model.generation_aligner", "model.generation_head"),
        ),
        ("model.aligner",),
        ("model.language_model",),
    )

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """The pieces between two marks."""
        return [f"<begin_of_image>{text}<end_of_image>" for text in super().written(sizes)]
