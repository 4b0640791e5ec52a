"""Multimodal families: one file each says what an image is in a prompt and what the model is given of it."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL.Image import Image
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoImageProcessor, PretrainedConfig

from swift.core.did_you_mean import suggestion
from swift.core.errors import NotBuilt, SwiftError, first_line
from swift.core.log import once
from swift.models.families.base import Family
from swift.prompts.images import BadImage

_HERE = "swift.models.families"
FAMILIES = {
    "gemma3": f"{_HERE}.gemma:Gemma3",
    "idefics3": f"{_HERE}.idefics3:Idefics3",
    "internvl": f"{_HERE}.internvl:InternVL",
    "llava": f"{_HERE}.llava:Llava",
    "llava_next": f"{_HERE}.llava_next:LlavaNext",
    "llava_onevision": f"{_HERE}.llava_next:LlavaOnevision",
    "mllama": f"{_HERE}.mllama:Mllama",
    "paligemma": f"{_HERE}.gemma:PaliGemma",
    "qwen2_vl": f"{_HERE}.qwen_vl:Qwen2VL",
    "qwen2_5_vl": f"{_HERE}.qwen_vl:Qwen2VL",
    "qwen3_vl": f"{_HERE}.qwen_vl:Qwen3VL",
    "smolvlm": f"{_HERE}.idefics3:Idefics3",
}
"""`model_type` of a config.json -> the family's class."""

REFERENCE_VARIABLES = ("MAX_PIXELS", "MIN_PIXELS", "MAX_NUM", "HD_NUM", "INPUT_SIZE", "RESIZED_HEIGHT", "RESIZED_WIDTH")
"""Environment variables of the 2.5 release that say how images are resized."""
NOT_SETTINGS = ("image_processor_type", "processor_class", "_processor_class", "auto_map")
"""What a processor says besides how it treats images: names of classes, which versions of transformers change."""


def is_multimodal(config: PretrainedConfig) -> bool:
    """Whether a family here carries out models of this configuration."""
    return config.model_type in FAMILIES


class Reader(Protocol):
    """Opens what a row names: a path, an address or a data URL. Each raises BadImage."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What it does to images, as JSON has it; empty where it leaves them as they are."""
        ...

    def __call__(self, source: str) -> Image:
        """The decoded image."""
        ...

    def size(self, source: str) -> tuple[int, int]:
        """Width and height as they are in the file."""
        ...

    def rescaled(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the decoded image."""
        ...


def family_of(config: PretrainedConfig) -> type[Family]:
    """The family of a multimodal model."""
    module, _, name = FAMILIES[config.model_type].partition(":")
    return getattr(importlib.import_module(module), name)


class Images:
    """A family with the model's own image processor: prompts ask it for tokens, batches for pixels."""

    def __init__(self, family: Family, processor: Any, read: Reader):
        self.family = family
        self.processor = processor
        self.token, self.token_text = family.token, family.token_text
        settings = json.loads(processor.to_json_string())
        own = {name: value for name, value in settings.items() if name not in NOT_SETTINGS and value is not None}
        self.facts: Mapping[str, Any] = {
            "family": type(family).__name__,
            "token": self.token_text,
            **own,
            **read.facts,
        }
        self._read = read

    def written(self, sources: Sequence[str]) -> list[str]:
        """What stands in the prompt for each image of a row.

        Raises BadImage when one cannot be used or the model cannot take its size.
        """
        sizes = [self._stated(source) for source in sources]
        try:
            return self.family.written(sizes)
        except ValueError as error:
            given = ", ".join(f"{width}x{height}" for width, height in sizes)
            raise BadImage(f"an image of {given} pixels does not fit the model", why=str(error)) from error

    def size(self, source: str) -> tuple[int, int]:
        """Width and height of an image as it is in the file, upright. Raises BadImage when it cannot be used."""
        return self._read.size(source)

    def check(self, sources: Sequence[str]) -> None:
        """Raise BadImage for an image that cannot be decoded after all, though its head could be read."""
        for source in sources:
            stated, decoded = self._stated(source), self._read(source).size
            if stated != decoded:
                raise BadImage(f"an image is {stated} by its head and {decoded} decoded", where=source[:200])

    def _stated(self, source: str) -> tuple[int, int]:
        return self._read.rescaled(*self._read.size(source))

    def counts(self, sources: Sequence[str]) -> list[int]:
        """Tokens that stand for pieces of each image of a row."""
        return [text.count(self.token_text) for text in self.written(sources)]

    def described(self, ids: Sequence[int], sources: Sequence[str]) -> Iterator[tuple[str, list[int]]]:
        """The ids of a row in stretches: an image with its words, `<image: 448x336, 192 tokens>`, or text with ""."""
        start = 0
        for source, count in zip(sources, self.counts(sources), strict=True):
            places = [place for place in range(start, len(ids)) if ids[place] == self.token][:count]
            if len(places) < count:
                break
            width, height = self._stated(source)
            if places[0] > start:
                yield "", list(ids[start : places[0]])
            start = places[-1] + 1
            yield f"<image: {width}x{height}, {count} tokens>", list(ids[places[0] : start])
        if start < len(ids):
            yield "", list(ids[start:])

    def inputs(self, rows: Sequence[Sequence[str]], ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """The model's further keywords for a batch of rows `ids` (B, T) with their images in order."""
        opened = [[self._read(source) for source in row] for row in rows]
        return self.family.inputs(self.processor, opened, ids, labels)

    def keys(self, ids: Sequence[int], sources: Sequence[str]) -> list[int]:
        """The ids of one row, with numbers below 0 for its images: equal for the same piece of the same picture."""
        keys = list(ids)
        places = [place for place, token in enumerate(ids) if token == self.token]
        for source, count in zip(sources, self.counts(sources), strict=True):
            image = self._read(source)
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


def load_images(
    config: PretrainedConfig, folder: Path, tokenizer: Any, read: Reader, kwargs: Mapping[str, Any]
) -> Images | None:
    """The images side of a model, whose image processor lies in `folder`; None for a model of text.

    `kwargs` are those of `--model_kwargs`, of which the processor takes what the model does not have. Raises SwiftError
    without a processor, and for a setting that neither has.
    """
    if not is_multimodal(config):
        if "vision_config" in config.to_dict() and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            raise NotBuilt(
                f"models of the kind {config.model_type} are not built yet",
                next=f"use one of {', '.join(FAMILIES)}",
            )
        return None
    family = family_of(config)
    try:
        processor: Any = AutoImageProcessor.from_pretrained(folder, backend="pil")
        settings = _settings(family, processor, {name: v for name, v in kwargs.items() if name not in config.to_dict()})
        if settings:
            processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **settings)
    except (OSError, ValueError) as error:
        raise SwiftError(
            f"the image processor of {folder} cannot be loaded",
            why=first_line(error),
            next="copy preprocessor_config.json of the model into the folder",
        ) from error
    token_text = tokenizer.convert_ids_to_tokens(config.image_token_id)
    return Images(family(config, processor, token_text), processor, read)


def _settings(family: type[Family], processor: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `--model_kwargs` and of the environment by the processor's own names; a flag goes before a variable."""
    own = processor.to_dict()
    for name in given:
        if name not in family.settings and name not in own:
            raise SwiftError(
                f"--model_kwargs names {name}, which neither the model nor its image processor has",
                where="--model_kwargs",
                next=suggestion(name, [*family.settings, *own]),
            )
    values = {**_environment(family), **given}
    return {family.settings.get(name, name): value for name, value in values.items()}


def _environment(family: type[Family]) -> dict[str, int]:
    values: dict[str, int] = {}
    for name in family.settings:
        text = os.environ.get(name.upper())
        if text is None:
            continue
        try:
            values[name] = int(text)
        except ValueError as error:
            raise SwiftError(f"{name.upper()} is {text!r}", where=name.upper(), why="it must be a number") from error
    for name in REFERENCE_VARIABLES:
        if name.lower() not in family.settings and name in os.environ:
            once(f"the environment variable {name} is set, and this model does not read it")
    return values
