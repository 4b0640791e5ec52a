"""Multimodal families: one file each says what an image is in a prompt and what the model is given of it."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any, Protocol

from PIL.Image import Image
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoImageProcessor, PretrainedConfig, PreTrainedModel

from swift.core.errors import NotBuilt, SwiftError
from swift.plan.tuner import Parts
from swift.prompts.images import BadImage

FAMILIES = {
    "llava": "swift.models.families.llava:Llava",
    "qwen2_vl": "swift.models.families.qwen2_vl:Qwen2VL",
    "qwen2_5_vl": "swift.models.families.qwen2_vl:Qwen2VL",
}
"""`model_type` of a config.json -> the family's class."""


NOT_SETTINGS = ("image_processor_type", "processor_class", "_processor_class", "auto_map")
"""What a processor says besides how it treats images: names of classes, which versions of transformers change."""


class Family(Protocol):
    """What one family does with images. It can be pickled for worker processes."""

    parts: Parts
    """Which modules are what."""
    token: int
    """The id that stands for a piece of an image."""
    before: str
    after: str
    """Text around the tokens of an image in a prompt."""
    causal: bool
    """Whether the pieces of an image see only what stands before them, as text does."""

    def __init__(self, config: Any, processor: Any):
        """Raises NotBuilt for a variant that is not carried out."""
        ...

    def count(self, width: int, height: int) -> int:
        """Tokens of an image of so many pixels, once its EXIF rotation is applied. Raises ValueError for a size that
        the model cannot take."""
        ...

    def inputs(self, processor: Any, images: Sequence[Image], ids: Tensor) -> dict[str, Tensor]:
        """What the model is given beside `ids` (B, T), for the images of its rows in their order."""
        ...

    def positions(self, model: PreTrainedModel, ids: Tensor, inputs: Mapping[str, Tensor]) -> Tensor | None:
        """Where each token of one row `ids` (1, T) with its `inputs` stands, (coordinates, 1, T); None: one by one."""
        ...


def is_multimodal(config: PretrainedConfig) -> bool:
    """Whether a family here carries out models of this configuration."""
    return config.model_type in FAMILIES


class Images:
    """A family with the model's own image processor: prompts ask it for tokens, batches for pixels."""

    def __init__(self, family: Family, processor: Any, token_text: str, read: Callable[[str], Image]):
        """`read` opens what a row names: a path or a data URL."""
        self.family = family
        self.processor = processor
        self.token, self.token_text = family.token, token_text
        self.before, self.after = family.before, family.after
        settings = json.loads(processor.to_json_string())
        own = {name: value for name, value in settings.items() if name not in NOT_SETTINGS and value is not None}
        self.facts: Mapping[str, Any] = {"family": type(family).__name__, "token": token_text, **own}
        self._read = read

    def count(self, source: str) -> int:
        """Tokens of an image. Raises BadImage when it cannot be decoded or the model cannot take its size."""
        width, height = self._read(source).size
        try:
            return self.family.count(width, height)
        except ValueError as error:
            raise BadImage(f"an image of {width}x{height} pixels does not fit the model", why=str(error)) from error

    def described(self, ids: Sequence[int], sources: Iterator[str]) -> Iterator[list[int] | str]:
        """The ids of a row with the next of its images in words, `<image: 448x336, 192 tokens>`, for their tokens."""
        for is_image, run in groupby(ids, lambda token: token == self.token):
            tokens = list(run)
            if is_image:
                width, height = self._read(next(sources)).size
                yield f"<image: {width}x{height}, {len(tokens)} tokens>"
            else:
                yield tokens

    def tokens_in(self, ids: Sequence[int], start: int) -> int:
        """How many tokens the image has that begins at the place `start` of a row."""
        return sum(1 for _ in takewhile(lambda token: token == self.token, ids[start:]))

    def inputs(self, sources: Sequence[str], ids: Tensor) -> dict[str, Tensor]:
        """The model's further keywords for a batch of rows `ids` (B, T) with these images in order."""
        return self.family.inputs(self.processor, [self._read(source) for source in sources], ids)

    def keys(self, ids: Sequence[int], sources: Sequence[str]) -> list[int]:
        """The ids of one row, with numbers below 0 for its images: equal for the same piece of the same picture."""
        keys = list(ids)
        places = [place for place, token in enumerate(ids) if token == self.token]
        for source in sources:
            image = self._read(source)
            count = self.family.count(*image.size)
            digest = hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()
            first = int.from_bytes(digest[:8]) << 32
            for piece, place in enumerate(places[:count]):
                keys[place] = -1 - first - piece
            del places[:count]
        if places:
            raise SwiftError(f"the prompt has {len(places)} tokens of images more than its images have")
        return keys

    def save(self, folder: Path) -> None:
        """Write the image processor beside the tokenizer of a checkpoint."""
        self.processor.save_pretrained(folder)


def load_images(config: PretrainedConfig, folder: Path, tokenizer: Any, read: Callable[[str], Image]) -> Images | None:
    """The images side of the model in `folder`; None for a model of text. Raises SwiftError without its processor."""
    if not is_multimodal(config):
        if "vision_config" in config.to_dict() and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise NotBuilt(
                f"models of the kind {config.model_type} are not built yet",
                next=f"use one of {', '.join(FAMILIES)}",
            )
        return None
    try:
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    except (OSError, ValueError) as error:
        raise SwiftError(
            f"the image processor of {folder} cannot be loaded",
            why=str(error).strip().splitlines()[0],
            next="copy preprocessor_config.json of the model into the folder",
        ) from error
    module, _, name = FAMILIES[config.model_type].partition(":")
    family = getattr(importlib.import_module(module), name)(config, processor)
    return Images(family, processor, tokenizer.convert_ids_to_tokens(family.token), read)
