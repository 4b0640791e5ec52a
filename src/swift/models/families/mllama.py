"""Llama 3.2 Vision: an image is one token, and layers of the decoder look at its tiles from there on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

from swift.core.errors import SwiftError
from swift.core.log import once
from swift.models.families.base import Family, Size
from swift.models.processor_files import PREPROCESSOR
from swift.plan.tuner import Parts


class Mllama(Family):
    """`MllamaForConditionalGeneration`."""

    parts = Parts(("model.vision_model",), ("model.multi_modal_projector",), ("model.language_model",))
    embedded = False
    lies_flat = False  # layers that look at tiles know no borders between rows

    @staticmethod
    def load_processor(folder: Path, **settings: Any) -> Any:
        """Raises SwiftError for that of another model, which cuts no tiles that a mask could name."""
        processor = Family.load_processor(folder, **settings)
        if "max_image_tiles" not in processor.to_dict():
            raise SwiftError(
                "the image processor is that of another model",
                where=str(folder / PREPROCESSOR),
                why=f"{type(processor).__name__} has no max_image_tiles",
                next="copy preprocessor_config.json of the model into the folder",
            )
        return processor

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """One token each."""
        return [self.token_text] * len(sizes)

    def inputs(
        self, processor: Any, rows: Sequence[Sequence[Image]], ids: Tensor, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """`pixel_values` (B, images, tiles, 3, height, width), `aspect_ratio_ids` (B, images), `aspect_ratio_mask`
        (B, images, tiles), and `cross_attention_mask` (B, T, images, tiles): which tokens look at which tile."""
        if not any(rows):
            return {}
        if len({len(row) for row in rows}) > 1:
            once(
                "rows of a batch have different numbers of images: in Llama 3.2 Vision, text before an image looks at "
                "the padding of the row too; --batch_size 1 keeps rows alone"
            )
        given = dict(processor([list(row) for row in rows], return_tensors="pt"))
        tiles = given.pop("num_tiles")
        places = [get_cross_attention_token_mask(row, self.token) for row in ids.tolist()]
        mask = convert_sparse_cross_attention_mask_to_dense(places, tiles, processor.max_image_tiles, ids.shape[1])
        return {**given, "cross_attention_mask": torch.from_numpy(mask)}
