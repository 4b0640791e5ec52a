"""Media for tests of engines that are installed apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoConfig, AutoTokenizer

from swift.catalog.entries import MediaText
from swift.data.image_files import ImageReader
from swift.data.sound_files import SoundReader
from swift.data.video_files import VideoReader
from swift.models.families import MediaProcessor, Readers, load_media_processor
from swift.prompts.types import Media

OF_THE_HUB = (
    ("^model.vision_tower.", "vision_tower."),
    ("^vision_tower.(?!vision_model)", "vision_tower.vision_model."),
)
"""Names of weights of towers that other engines know: those of models on the hub, not of new ones of transformers 5."""


def media_side(model: Path, kwargs: Mapping[str, Any] | None = None) -> MediaProcessor:
    """What makes pixels for the model of a folder."""
    read = Readers(ImageReader(), VideoReader(ImageReader()), SoundReader())
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    images = load_media_processor(AutoConfig.from_pretrained(model), model, tokenizer, read, kwargs or {})
    assert images is not None
    return images


def write_pictures(folder: Path) -> list[str]:
    """Three, of three shapes."""
    paths = []
    for number, size in enumerate(((60, 100), (112, 56), (300, 200))):
        paths.append(str(folder / f"{number}.png"))
        picture = Image.new("RGB", size)
        picture.putdata([((x * 7 + number * 50) % 256, x % 90, x * x % 256) for x in range(size[0] * size[1])])
        picture.save(paths[-1])
    return paths


def prompt(images: MediaProcessor, tokenizer: Any, media: Media) -> tuple[int, ...]:
    """The ids of a question about `media`."""
    written = images.written(media, MediaText())
    text = f"Look {' and '.join(each for kind in written for each in written[kind])}? What is it?"
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
