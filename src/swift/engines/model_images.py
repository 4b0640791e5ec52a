"""The images side of a model, which a model of text does without: nothing is imported for it then."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift import models
from swift.core.errors import SwiftError
from swift.models.known_decoders import known_decoder
from swift.models.processor_files import PREPROCESSOR
from swift.plan.model import ModelPlan
from swift.plan.unread import say_unread_variables

if TYPE_CHECKING:
    from swift.models.families import MediaProcessor


def media_processor_of(
    plan: ModelPlan, folder: Path, tokenizer: Any, checkpoint: Path | None = None, pixels: Path | None = None
) -> MediaProcessor | None:
    """What makes tokens and pixels of images for the model in `folder`; None for a model of text.

    A `checkpoint` that training goes on from has the image processor as it was, and so has an adapter's. `pixels` is
    the folder where pixels are kept.

    Raises SwiftError for a multimodal model that is not carried out, or whose image processor is missing, and for
    `--rescale_image` where nothing takes images.
    """
    if known_decoder(plan, folder) is not None:
        return _none(plan)
    from swift.data.bounded_store import BoundedStore
    from swift.data.image_files import ImageReader
    from swift.data.pixel_cache import PixelCache
    from swift.data.sound_files import SoundReader
    from swift.data.video_files import VideoReader
    from swift.models.families import Readers, load_media_processor

    trained = checkpoint or (Path(plan.adapter) if plan.adapter else folder)
    processor = trained if (trained / PREPROCESSOR).is_file() else folder
    image = ImageReader(plan.rescale_image, None if pixels is None else PixelCache(BoundedStore(pixels)))
    readers = Readers(image, VideoReader(image), SoundReader())
    images = load_media_processor(models.load_config(plan, folder), processor, tokenizer, readers, plan.model_kwargs)
    return _none(plan) if images is None else images


def _none(plan: ModelPlan) -> None:
    if plan.rescale_image is not None:
        raise SwiftError(
            "--rescale_image makes images smaller, and this model takes none",
            where="--rescale_image",
            next="leave it out",
        )
    say_unread_variables()
