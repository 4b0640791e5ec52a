"""Qwen2-VL, 2.5 and 3: images and frames keep their shape, four patches are a token, places in them are positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor, sqrt
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL.Image import Image, Resampling
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from swift.core.errors import SwiftError
from swift.models.families.base import Family, Size, Video
from swift.models.families.sampling import Sampling, TokenName
from swift.models.processor_files import PREPROCESSOR
from swift.plan.tuner import Parts
from swift.prompts.images import Clip

IMAGE, VIDEO = 1, 2
"""Values of `mm_token_type_ids`."""


class Qwen2VL(Family):
    """`Qwen2VLForConditionalGeneration`."""

    parts = Parts(("model.visual",), ("model.visual.merger",), ("model.language_model",))
    settings: ClassVar = {"min_pixels": "min_pixels", "max_pixels": "max_pixels", "size_factor": "size_factor"}
    video_settings: ClassVar = {
        "max_pixels": "longest_edge",
        "fps": "fps",
        "nframes": "num_frames",
        "fps_min_frames": "min_frames",
        "fps_max_frames": "max_frames",
        "video_min_pixels": "shortest_edge",
        "video_max_pixels": "longest_edge",
        "video_total_pixels": "total_pixels",
    }
    sampling: Sampling = Sampling()

    @staticmethod
    def load_processor(folder: Path, **settings: Any) -> Any:
        """With `size_factor`, which transformers' own keeps and does not read. Raises SwiftError for one that does not
        resize: images have no tokens then unless their sides happen to fit."""
        factor = settings.pop("size_factor", None)
        processor = Family.load_processor(folder, **settings)
        if not processor.do_resize:
            raise SwiftError(
                "images of this model are resized as it was trained, and do_resize is false",
                where=str(folder / PREPROCESSOR),
                next='write "do_resize": true there',
            )
        if factor is not None:
            processor.size_factor = factor
        return processor

    @staticmethod
    def blocks_read(config: Any) -> tuple[int, ...]:
        """The last."""
        return (config.vision_config.depth - 1,)

    def __init__(self, config: Any, processor: Any, token_text: str, sampling: Sampling, name: TokenName):
        super().__init__(config, processor, token_text)
        self.sampling = sampling
        self._video_text = name(config.video_token_id)
        self._size_factor: int | None = processor.to_dict().get("size_factor")
        self._frames_a_piece: int = config.vision_config.temporal_patch_size
        self._video_token: int = config.video_token_id

    @property
    def tokens(self) -> Mapping[str, tuple[str, int]]:
        """One for pieces of images, and one for those of videos."""
        return {**super().tokens, "videos": (self._video_text, self._video_token)}

    def written(self, sizes: Sequence[Size]) -> list[str]:
        """By the size that the processor gives an image; ValueError beyond an aspect ratio of 200."""
        piece = self._piece**2
        counts = [width * height // piece for width, height in map(self._smart, sizes)]
        return [f"<|vision_start|>{self.token_text * count}<|vision_end|>" for count in counts]

    @property
    def _piece(self) -> int:
        """Pixels of a token along each side."""
        return self._processor.patch_size * self._processor.merge_size

    def resized(self, size: Size) -> Size:
        """To multiples of a token's pixels, in number between the processor's bounds."""
        return self._smart(size)

    def box_size(self, size: Size) -> Size:
        """The size that the processor gives the image."""
        return self._smart(size)

    def _smart(self, size: Size) -> Size:
        bounds = self._processor.size
        return self._fitted(size, bounds["shortest_edge"], bounds["longest_edge"])

    def _fitted(self, size: Size, fewest: int, most: int) -> Size:
        height, width = smart_resize(size[1], size[0], self._size_factor or self._piece, fewest, most)
        if self._size_factor:  # in the 2.5 release the processor rounds what was resized to multiples of the factor
            height, width = (max(1, round(side / self._piece)) * self._piece for side in (height, width))
        return width, height

    def chosen(self, clip: Clip) -> list[int]:
        """Two a second, an even number; ValueError for less than two frames."""
        return self.sampling.by_rate(clip, self._frames_a_piece)

    def written_video(self, clip: Clip) -> str:
        """All pieces in a row; two frames share theirs. ValueError beyond an aspect ratio of 200."""
        steps, rows, columns = self._grid(clip)
        return f"<|vision_start|>{self._video_text * (steps * rows * columns)}<|vision_end|>"

    def _grid(self, clip: Clip) -> tuple[int, int, int]:
        """Pieces of a video in time, down and across."""
        count = len(self.chosen(clip))
        width, height = self.frame_size(clip, count)
        return -(-count // self._frames_a_piece), height // self._piece, width // self._piece

    def frame_size(self, clip: Clip, count: int) -> Size:
        """Width and height that each of `count` frames is given."""
        fewest, most = self.sampling.pixels(count, self._frames_a_piece)
        return self._fitted((clip.width, clip.height), fewest, most)

    def inputs(
        self, processor: Any, rows: Sequence[Sequence[Image | Video]], ids: Tensor, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """`pixel_values` (patches, values), `image_grid_thw` (images, 3), the same of videos, and
        `mm_token_type_ids` (B, T): 1 is an image, 2 a video."""
        images = [each for row in rows for each in row if isinstance(each, Image)]
        videos = [each for row in rows for each in row if isinstance(each, Video)]
        if not images and not videos:
            return {}
        kinds = (ids == self.token) * IMAGE + (ids == self._video_token) * VIDEO
        # They come in their size, see `resized`.
        of_images = dict(processor(images, do_resize=False, return_tensors="pt")) if images else {}
        return {**of_images, **self._of_videos(processor, videos), "mm_token_type_ids": kinds}

    def _of_videos(self, processor: Any, videos: Sequence[Video]) -> dict[str, Tensor]:
        """`pixel_values_videos` (patches, values) and `video_grid_thw` (videos, 3)."""
        if not videos:
            return {}
        patches, grids = zip(*(self._patches(processor, video) for video in videos), strict=True)
        return {"pixel_values_videos": torch.cat(patches), "video_grid_thw": torch.tensor(grids)}

    def _patches(self, processor: Any, video: Video) -> tuple[Tensor, tuple[int, int, int]]:
        """A video as patches of `_frames_a_piece` frames each, the last frame once more where one is missing."""
        size, depth = self.frame_size(video.clip, len(video.frames)), self._frames_a_piece
        frames = [frame.resize(size, Resampling.BICUBIC) for frame in video.frames]
        frames += frames[-1:] * (-len(frames) % depth)
        given = processor(frames, do_resize=False, return_tensors="pt")
        _, rows, columns = given["image_grid_thw"][0].tolist()
        # Of an image every patch holds the same frame `depth` times; here each place takes a frame of its own.
        patches = given["pixel_values"].view(len(frames) // depth, depth, rows * columns, 3, depth, -1)
        mixed = torch.stack([patches[:, place, :, :, place] for place in range(depth)], dim=3)
        return mixed.flatten(2).flatten(0, 1), (len(frames) // depth, rows, columns)

    def positions(
        self, model: PreTrainedModel, ids: Tensor, inputs: Mapping[str, Tensor], mask: Tensor | None = None
    ) -> Tensor | None:
        """Time, row and column; behind what is shown text goes on after the largest of them."""
        if "mm_token_type_ids" not in inputs:
            return None
        inner: Any = model.base_model
        names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
        grids = {name: inputs[name] for name in names if name in inputs}
        places, _ = inner.get_rope_index(ids, inputs["mm_token_type_ids"], attention_mask=mask, **grids)
        return places


class Qwen25VL(Qwen2VL):
    """`Qwen2_5_VLForConditionalGeneration`: places in a video count its seconds, boxes the pixels of what it is shown.

    Boxes: https://github.com/QwenLM/Qwen2.5-VL, "absolute coordinates".
    """

    boxes_in_pixels = True

    def _of_videos(self, processor: Any, videos: Sequence[Video]) -> dict[str, Tensor]:
        """`second_per_grid_ts` (videos) too."""
        seconds = [self._frames_a_piece * video.clip.frames / video.clip.fps / len(video.frames) for video in videos]
        given = super()._of_videos(processor, videos)
        return {**given, "second_per_grid_ts": torch.tensor(seconds)} if videos else {}


class Qwen3VL(Qwen2VL):
    """`Qwen3VLForConditionalGeneration`: several layers of the tower are added to layers of the decoder, and the times
    of a video are written between its frames."""

    parts = Parts(
        ("model.visual",), ("model.visual.merger", "model.visual.deepstack_merger_list"), ("model.language_model",)
    )
    embedded = False
    sampling: Sampling = Sampling(shortest_edge=128 * 32 * 32, longest_edge=768 * 32 * 32)
    """Here the pixels of all frames together, as in transformers."""
    video_settings: ClassVar = {
        name: own for name, own in Qwen2VL.video_settings.items() if name not in ("max_pixels", "video_total_pixels")
    }

    @staticmethod
    def blocks_read(config: Any) -> tuple[int, ...]:
        """The last, and those whose states are added to layers of the decoder."""
        last = config.vision_config.depth - 1
        return tuple(sorted({*config.vision_config.deepstack_visual_indexes, last}))

    def frame_size(self, clip: Clip, count: int) -> Size:
        """By the pixels of all frames together."""
        # As transformers' class for these videos has it, which needs torchvision.
        factor, depth = self._piece, self._frames_a_piece
        grown = max(1.0, factor / clip.height, factor / clip.width)
        height, width = int(clip.height * grown), int(clip.width * grown)
        if max(height, width) > 200 * min(height, width):
            raise ValueError(f"the aspect ratio of {width}x{height} is above 200")
        down, across = round(height / factor) * factor, round(width / factor) * factor
        pixels = round(max(count, depth) / depth) * depth * down * across
        fewest, most = self.sampling.shortest_edge, self.sampling.longest_edge
        if fewest <= pixels <= most:
            return across, down
        scale = sqrt((fewest if pixels < fewest else most) / (count * height * width))
        to_multiple = ceil if pixels < fewest else floor
        down, across = (max(factor, to_multiple(side * scale / factor) * factor) for side in (height, width))
        return across, down

    def written_video(self, clip: Clip) -> str:
        """Each piece of time behind its seconds."""
        depth, numbers = self._frames_a_piece, self.chosen(clip)
        numbers += numbers[-1:] * (-len(numbers) % depth)
        _, rows, columns = self._grid(clip)
        pieces = f"<|vision_start|>{self._video_text * (rows * columns)}<|vision_end|>"
        seconds = [number / clip.fps for number in numbers]
        times = [(seconds[at] + seconds[at + depth - 1]) / 2 for at in range(0, len(seconds), depth)]
        return "".join(f"<{time:.1f} seconds>{pieces}" for time in times)
