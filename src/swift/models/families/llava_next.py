"""LLaVA-NeXT and LLaVA-OneVision: an image is one small view and tiles of a large one, whose rows end in a newline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, ClassVar

import torch
from PIL.Image import Image
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution

from swift.core.errors import NotBuilt
from swift.models.families.base import Family, Size, Video
from swift.models.families.llava import TOWERS, WITH_CLASS_TOKEN, stated_layers
from swift.models.families.sampling import Sampling, TokenName
from swift.plan.tuner import Parts
from swift.prompts.images import Clip

PARTS = Parts(
    ("model.vision_tower",), ("model.multi_modal_projector", "model.image_newline"), ("model.language_model",)
)


class LlavaNext(Family):
    """`LlavaNextForConditionalGeneration` on a CLIP or SigLIP tower."""

    parts = PARTS

    @staticmethod
    def layers_read(config: Any) -> tuple[int | None, ...]:
        """Those that the configuration names."""
        return stated_layers(config)

    def __init__(self, config: Any, processor: Any, token_text: str):
        super().__init__(config, processor, token_text)
        vision = config.vision_config
        if vision.model_type not in TOWERS:
            raise NotBuilt(
                f"LLaVA-NeXT on a tower of the kind {vision.model_type} is not built yet",
                next=f"use one on {' or '.join(TOWERS)}",
            )
        shape = processor.crop_size
        self._tile = shape["height"], shape["width"]
        self._patches = shape["height"] // vision.patch_size, shape["width"] // vision.patch_size
        dropped = config.vision_feature_select_strategy == "default"
        self._extra = (vision.model_type in WITH_CLASS_TOKEN) - dropped

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """The pieces of both views, and a line break as in LLaVA."""
        return [self.token_text * self._count(*size) + "\n" for size in sizes]

    def _count(self, width: int, height: int) -> int:
        rows, columns = self._large_view(width, height)
        return self._patches[0] * self._patches[1] + self._extra + rows * (columns + 1)

    def _large_view(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of patches of the large view that show the image and not the padding around it."""
        canvas = select_best_resolution((height, width), self._processor.image_grid_pinpoints)
        rows = canvas[0] // self._tile[0] * self._patches[0]
        columns = canvas[1] // self._tile[1] * self._patches[1]
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        return rows, columns


class LlavaNextVideo(LlavaNext):
    """`LlavaNextVideoForConditionalGeneration`: a frame is a square, and its pieces are pooled."""

    parts = Parts(PARTS.tower, (*PARTS.projector, "model.vision_resampler"), PARTS.decoder)
    video_settings: ClassVar = {"num_frames": "num_frames"}
    sampling: Sampling = Sampling(num_frames=16)

    def __init__(self, config: Any, processor: Any, token_text: str, sampling: Sampling, name: TokenName):
        super().__init__(config, processor, token_text)
        self.sampling = sampling
        self._video_text = name(config.video_token_id)
        self._video_token: int = config.video_token_id
        self._pooled: int = config.spatial_pool_stride

    @property
    def tokens(self) -> Mapping[str, tuple[str, int]]:
        """One for pieces of images, and one for those of videos."""
        return {**super().tokens, "videos": (self._video_text, self._video_token)}

    def chosen(self, clip: Clip) -> list[int]:
        """The same number of every video, as they share a tensor."""
        return self.sampling.spread(clip, middle=False)

    def frame_size(self, clip: Clip, count: int) -> Size:
        """The shorter side as long as the square, which is cut out of the middle."""
        edge = self._tile[0]
        long = int(edge * max(clip.width, clip.height) / min(clip.width, clip.height))
        return (edge, long) if clip.width <= clip.height else (long, edge)

    def written_video(self, clip: Clip) -> str:
        """The pooled pieces of all frames in a row, and a line break."""
        rows, columns = (side // self._pooled for side in self._patches)
        return self._video_text * (len(self.chosen(clip)) * rows * columns) + "\n"

    def inputs(
        self, processor: Any, rows: Sequence[Sequence[Image | Video]], ids: Tensor, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """`pixel_values` (images, tiles, 3, height, width), `image_sizes` (images, 2), and `pixel_values_videos`
        (videos, frames, 3, height, width)."""
        images = [[each for each in row if isinstance(each, Image)] for row in rows]
        videos = [each for row in rows for each in row if isinstance(each, Video)]
        of_images = super().inputs(processor, images, ids, labels)
        if not videos:
            return of_images
        squares = [[self._square(frame) for frame in one.frames] for one in videos]
        return {**of_images, "pixel_values_videos": small_views(processor, squares, self._tile)}

    def _square(self, frame: Image) -> Image:
        height, width = self._tile
        left, top = round((frame.width - width) / 2), round((frame.height - height) / 2)
        return frame.crop((left, top, left + width, top + height))


def small_views(processor: Any, videos: Sequence[Sequence[Image]], tile: tuple[int, int]) -> Tensor:
    """Frames as the processor has the small view of an image, (videos, frames, 3, height, width)."""
    grid = [list(tile)]  # one tile beside the small view, which is what a frame is
    given = [processor(list(frames), image_grid_pinpoints=grid, return_tensors="pt") for frames in videos]
    return torch.stack([each["pixel_values"][:, 0] for each in given])


class LlavaOnevision(LlavaNext):
    """`LlavaOnevisionForConditionalGeneration`: a large view is made smaller again, and several images have none."""

    parts = PARTS
    video_settings: ClassVar = {"num_frames": "num_frames"}
    sampling: Sampling = Sampling(num_frames=16)

    def __init__(self, config: Any, processor: Any, token_text: str, sampling: Sampling, name: TokenName):
        Family.__init__(self, config, processor, token_text)
        self.sampling = sampling
        self._video_text = name(config.video_token_id)
        self._video_token: int = config.video_token_id
        vision = config.vision_config
        if config.vision_feature_select_strategy != "full":
            raise NotBuilt(
                "LLaVA-OneVision is built for vision_feature_select_strategy full", next="use a model of llava-hf"
            )
        side = vision.image_size // vision.patch_size
        self._tile, self._patches, self._extra = (vision.image_size,) * 2, (side, side), 0
        self._most = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """Both views of a single image; the small views of several, with one newline each."""
        if len(sizes) == 1:
            return super().written(sizes)
        return [self.token_text * (self._patches[0] * self._patches[1] + 1) + "\n"] * len(sizes)

    def _large_view(self, width: int, height: int) -> tuple[int, int]:
        rows, columns = super()._large_view(width, height)
        ratio = sqrt(rows * columns / (self._most * self._patches[0] ** 2))
        return (int(rows // ratio), int(columns // ratio)) if ratio > 1.1 else (rows, columns)

    @property
    def tokens(self) -> Mapping[str, tuple[str, int]]:
        """One for pieces of images, and one for those of videos."""
        return {**super().tokens, "videos": (self._video_text, self._video_token)}

    def chosen(self, clip: Clip) -> list[int]:
        """The same number of every video, as they share a tensor."""
        return self.sampling.spread(clip, middle=False)

    def written_video(self, clip: Clip) -> str:
        """A quarter of the pieces of a small view for each frame, a newline behind all, and a line break."""
        side = -(-self._patches[0] // 2)
        return self._video_text * (len(self.chosen(clip)) * side**2 + 1) + "\n"

    def inputs(
        self, processor: Any, rows: Sequence[Sequence[Image | Video]], ids: Tensor, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """`pixel_values` (images, tiles, 3, height, width), `image_sizes` (images, 2), `batch_num_images` (rows), and
        `pixel_values_videos` (videos, frames, 3, height, width)."""
        nested = [[each for each in row if isinstance(each, Image)] for row in rows]
        nested = [row for row in nested if row]
        of_images = dict(processor(nested, return_tensors="pt")) if nested else {}
        videos = [each for row in rows for each in row if isinstance(each, Video)]
        if not videos:
            return of_images
        frames = [one.frames for one in videos]
        return {**of_images, "pixel_values_videos": small_views(processor, frames, self._tile)}
