"""What a family of multimodal models has to say, and what most of them have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from PIL.Image import Image
from torch import Tensor
from transformers import PreTrainedModel

from swift.plan.tuner import Parts

Size = tuple[int, int]
"""Width and height in pixels, once the EXIF rotation is applied."""


class Family:
    """What one family does with images. It can be pickled for worker processes."""

    parts: ClassVar[Parts]
    """Which modules are what."""
    settings: ClassVar[Mapping[str, str]] = {}
    """Names that `--model_kwargs` and, in capitals, environment variables have for settings of the image processor."""
    embedded: ClassVar[bool] = True
    """Whether images reach the decoder only as embeddings of their tokens, which see what stands before them as text
    does. Otherwise a prompt is computed in one piece by the model itself."""

    def __init__(self, config: Any, processor: Any, token_text: str):
        """Raises NotBuilt for a variant that is not carried out."""
        self.token: int = config.image_token_id
        self.token_text = token_text
        self._processor = processor

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """What stands in a prompt for each image of a row, with `token_text` for each of its pieces.

        Raises ValueError for a size that the model cannot take.
        """
        raise NotImplementedError

    def inputs(
        self, processor: Any, rows: Sequence[Sequence[Image]], ids: Tensor, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """What the model is given beside `ids` (B, T), for the images of each row; `labels` (B, T) in training."""
        images = [image for row in rows for image in row]
        return dict(processor(images, return_tensors="pt")) if images else {}

    def positions(self, model: PreTrainedModel, ids: Tensor, inputs: Mapping[str, Tensor]) -> Tensor | None:
        """Where each token of one row `ids` (1, T) with its `inputs` stands, (coordinates, 1, T); None: one by one."""
        return None
