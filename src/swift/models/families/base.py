"""What a family of multimodal models has to say, and what most of them have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoModelForImageTextToText, PreTrainedModel

from swift.models.families.sampling import Sampling
from swift.plan.tuner import Parts
from swift.prompts.images import Clip

Size = tuple[int, int]
"""Width and height in pixels, once the EXIF rotation is applied."""
Waveform = NDArray[np.float32]
"""A sound: samples from -1 to 1, one channel, at the rate that the model hears."""


@dataclass(frozen=True)
class Video:
    """A video as the model is shown it."""

    clip: Clip
    frames: Sequence[Image]
    """Those that were chosen of it."""


class Family:
    """What one family does with images. It can be pickled for worker processes."""

    auto_class: ClassVar[Any] = AutoModelForImageTextToText
    """The class of transformers that makes its models."""
    token_name: ClassVar[str] = "image_token_id"
    """What a configuration calls the token for pieces."""
    parts: ClassVar[Parts]
    """Which modules are what."""
    settings: ClassVar[Mapping[str, str]] = {}
    """Names that `--model_kwargs` and, in capitals, environment variables have for settings of the image processor."""
    video_settings: ClassVar[Mapping[str, str]] = {}
    """Likewise of the choice and the size of frames."""
    sampling: Sampling | None = None
    """How frames of videos are chosen; None for models that take none. Of a family what holds where a model's folder
    does not say more."""
    audio_form: ClassVar[str] = ""
    """What stands for a sound where the template does not say so, with one token."""
    boxes_in_pixels: ClassVar[bool] = False
    """Whether the model was taught boxes in pixels of what it is shown, and not in thousandths of it."""
    lies_flat: ClassVar[bool] = True
    """Whether rows of it may lie end to end at all. Otherwise that is not even tried."""
    stands_first: ClassVar[bool] = False
    """Whether an image, of which each row has one, stands before all of a prompt wherever its text names it."""
    opening: tuple[int, ...] = ()
    """What an answer begins with in the decoder of a model whose encoder reads the prompt: the token that starts it and
    its bos. Empty where one decoder reads both."""
    writes_special_tokens: ClassVar[bool] = False
    """Whether answers hold special tokens of the tokenizer, such as places in a picture, which are shown."""
    embedded: ClassVar[bool] = True
    """Whether images reach the decoder only as embeddings of their tokens, which see what stands before them as text
    does. Otherwise a prompt is computed in one piece by the model itself."""

    def __init__(self, config: Any, processor: Any, token_text: str):
        """Raises NotBuilt for a variant that is not carried out."""
        self.token: int = getattr(config, self.token_name)
        self.token_text = token_text
        self._processor = processor

    @staticmethod
    def layers_read(config: Any) -> tuple[int | None, ...]:
        """The layers of the tower that the projector reads, None for the last hidden state.

        Nothing where the states of one tile cannot be told from those of others.
        """
        return ()

    @staticmethod
    def blocks_read(config: Any) -> tuple[int, ...]:
        """The blocks of a tower that is given patches of all images in one row, whose output is read by other modules
        than the next block. Nothing of other towers, which `layers_read` is for."""
        return ()

    @staticmethod
    def load_processor(folder: Path, **settings: Any) -> Any:
        """What makes numbers of media, as it lies in a folder."""
        return AutoImageProcessor.from_pretrained(folder, backend="pil", **settings)

    @property
    def tokens(self) -> Mapping[str, tuple[str, int]]:
        """The kinds of media that the model takes, each with the token for its pieces: text and id."""
        return {"images": (self.token_text, self.token)}

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """What stands in a prompt for each image of a row, with `token_text` for each of its pieces.

        Raises ValueError for a size that the model cannot take.
        """
        raise NotImplementedError

    def resized(self, size: Size) -> Size | None:
        """The size that the processor gives an image of `size` before anything else; None where that is not one size.

        Such an image may be resized beforehand, and the processor leaves it as it is.
        """
        return None

    def box_size(self, size: Size) -> Size:
        """Width and height that boxes in an image of `size` count in, where `boxes_in_pixels`."""
        return self.resized(size) or size

    @property
    def resample(self) -> int:
        """How the processor resizes, as Pillow numbers it."""
        return int(self._processor.resample)

    def frame_size(self, clip: Clip, count: int) -> Size | None:
        """Width and height that each of `count` frames is given; None leaves that to the processor."""
        return None

    def chosen(self, clip: Clip) -> list[int]:
        """The numbers of the frames that are shown of a video. ValueError for one that the model cannot take."""
        raise NotImplementedError

    def written_video(self, clip: Clip) -> str:
        """What stands in a prompt for a video. ValueError for one that the model cannot take."""
        raise NotImplementedError

    @property
    def rate(self) -> int:
        """Samples of a sound a second."""
        raise NotImplementedError

    @property
    def longest(self) -> int:
        """Samples of a sound that are heard; what is behind them is left out."""
        raise NotImplementedError

    def pieces(self, samples: int) -> int:
        """Tokens that stand for a sound of so many samples. ValueError for one that the model cannot take."""
        raise NotImplementedError

    def inputs(
        self, processor: Any, rows: Sequence[Sequence[Image]], ids: Tensor, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """What the model is given beside `ids` (B, T), for the images of each row; `labels` (B, T) in training.

        Families of videos have them behind the images of a row, as `Video`; those of sounds have each as a `Waveform`.
        """
        images = [image for row in rows for image in row]
        return dict(processor(images, return_tensors="pt")) if images else {}

    def positions(
        self, model: PreTrainedModel, ids: Tensor, inputs: Mapping[str, Tensor], mask: Tensor | None = None
    ) -> Tensor | None:
        """Where each token of rows `ids` (B, T) with their `inputs` stands, (coordinates, B, T); None: one by one.

        `mask` (B, T) is 0 at padding, where positions mean nothing.
        """
        return None

    def both_ways(self, ids: Sequence[int], labels: Sequence[int]) -> list[tuple[int, int]]:
        """First place and end of each stretch of a row whose tokens see all of the stretch, and not only what stands
        before them."""
        return []
