"""Multimodal families: one file each says what an image is in a prompt and what the model is given of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any, Protocol

from PIL.Image import Image
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoImageProcessor, PretrainedConfig

from swift.core.errors import NotBuilt, SwiftError
from swift.plan.tuner import Parts
from swift.prompts.images import BadImage

FAMILIES = {
    "llava": "swift.models.families.llava:Llava",
    "qwen2_vl": "swift.models.families.qwen2_vl:Qwen2VL",
    "qwen2_5_vl": "swift.models.families.qwen2_vl:Qwen2VL",
}
"""`model_type` of a config.json -> the family's class."""


class Family(Protocol):
    """What one family does with images. It can be pickled for worker processes."""

    parts: Parts
    """Which modules are what."""
    token: int
    """The id that stands for a piece of an image."""
    before: str
    after: str
    """Text around the tokens of an image in a prompt."""

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
        self.facts = repr((type(family).__name__, token_text, sorted(map(repr, processor.to_dict().items()))))
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

    def save(self, folder: Path) -> None:
        """Write the image processor beside the tokenizer of a checkpoint."""
        self.processor.save_pretrained(folder)


def load_images(config: PretrainedConfig, folder: Path, tokenizer: Any, read: Callable[[str], Image]) -> Images | None:
    """The images side of the model in `folder`; None for a model of text. Raises SwiftError without its processor."""
    if not is_multimodal(config):
        if "vision_config" in config.to_dict() and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise NotBuilt(
                f"models of the kind {config.model_type} are not trained here yet",
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
