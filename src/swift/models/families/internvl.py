"""InternVL as transformers has it: square tiles of an image and a small view of the whole, all of equal length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL.Image import Image
from torch import Tensor

from swift.models.families.base import Family, Size, Video
from swift.models.families.llava import stated_layers
from swift.models.families.sampling import Sampling, TokenName
from swift.plan.tuner import Parts
from swift.prompts.images import Clip


class InternVL(Family):
    """`InternVLForConditionalGeneration`."""

    parts = Parts(("model.vision_tower",), ("model.multi_modal_projector",), ("model.language_model",))
    settings: ClassVar = {"max_num": "max_patches"}
    video_settings: ClassVar = {"video_segments": "num_frames"}
    sampling: Sampling = Sampling(num_frames=8)

    @staticmethod
    def layers_read(config: Any) -> tuple[int | None, ...]:
        """Those that the configuration names; -1 is the last hidden state, behind its norm."""
        return tuple(None if layer == -1 else layer for layer in stated_layers(config))

    def __init__(self, config: Any, processor: Any, token_text: str, sampling: Sampling, _: TokenName):
        super().__init__(config, processor, token_text)
        self.sampling = sampling
        # Its processor class cuts tiles whatever preprocessor_config.json says.
        processor.crop_to_patches = True
        height, width = config.vision_config.image_size
        patch = config.vision_config.patch_size
        self._pieces = int(height // patch[0] * (width // patch[1]) * config.downsample_ratio**2)

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """The pieces of all tiles in a row between two marks, and a line break."""
        tiles = [self._processor.get_number_of_image_patches(height, width) for width, height in sizes]
        return [f"<img>{self.token_text * (self._pieces * count)}</img>\n" for count in tiles]

    @property
    def tokens(self) -> Mapping[str, tuple[str, int]]:
        """The pieces of frames are those of images."""
        return dict.fromkeys(("images", "videos"), (self.token_text, self.token))

    def chosen(self, clip: Clip) -> list[int]:
        """As many as `video_segments` says, each from the middle of its part."""
        return self.sampling.spread(clip, middle=True)

    def written_video(self, clip: Clip) -> str:
        """A line for each frame, whose pieces are those of one tile."""
        frames = range(1, len(self.chosen(clip)) + 1)
        return "".join(f"Frame{number}: <img>{self.token_text * self._pieces}</img>\n" for number in frames)

    def inputs(
        self, processor: Any, rows: Sequence[Sequence[Image | Video]], ids: Tensor, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """`pixel_values` (tiles, 3, height, width), those of a video one for each frame."""
        shown = [each for row in rows for each in row]
        if not shown:
            return {}
        tiles = [
            processor(list(one.frames), crop_to_patches=False, return_tensors="pt")["pixel_values"]
            if isinstance(one, Video)
            else processor([one], return_tensors="pt")["pixel_values"]
            for one in shown
        ]
        return {"pixel_values": torch.cat(tiles)}
