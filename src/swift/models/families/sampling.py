"""Which frames of a video are shown, and how large: the rules of the 2.5 release, which are those of qwen_vl_utils."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np

from swift.core.errors import SwiftError
from swift.core.transaction import write_file
from swift.models.processor_files import VIDEOS, WHOLE
from swift.prompts.images import Clip

TokenName = Callable[[int], str]
"""What a tokenizer calls a token."""


@dataclass(frozen=True)
class Sampling:
    """The settings of a model, by the names that transformers has for them."""

    fps: float = 2.0
    """Frames a second that are shown."""
    num_frames: int | None = None
    """So many of each video instead."""
    min_frames: int = 4
    max_frames: int = 768
    shortest_edge: int = 128 * 28 * 28
    """Fewest pixels of a frame; smaller ones are enlarged."""
    longest_edge: int = 768 * 28 * 28
    """Most pixels of a frame."""
    total_pixels: int = int(128000 * 28 * 28 * 0.9)
    """Most pixels of all frames of a video."""

    def of(self, folder: Path, given: Mapping[str, Any]) -> Sampling:
        """The settings of the model in `folder`, with what is `given`. Raises SwiftError for values that are none."""
        whole, own = (_read(folder / name) for name in (WHOLE, VIDEOS))
        stated = whole.get("video_processor") or own
        values = {**stated, **(stated.get("size") or {}), **given}
        names = {field.name for field in fields(self)}
        known = {name: value for name, value in values.items() if name in names and value is not None}
        for name, value in known.items():
            if not isinstance(value, int | float) or value <= 0:
                raise SwiftError(f"{name} of videos is {value!r}", why="it must be a number above 0")
        return replace(self, **known)

    def save(self, folder: Path) -> None:
        """Write the settings where transformers has them."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        size = {name: values.pop(name) for name in ("shortest_edge", "longest_edge")}
        write_file(folder / VIDEOS, json.dumps({**values, "size": size}, indent=2) + "\n")

    def by_rate(self, clip: Clip, multiple: int) -> list[int]:
        """Numbers of frames spread evenly over a video, first and last included: `fps` of them a second.

        Their count can be divided by `multiple`, but for those of a list, which are all shown. ValueError for a video
        that is too short.
        """
        if clip.listed:
            return list(range(clip.frames))
        if self.num_frames is not None:
            # A video may have fewer: qwen_vl_utils refuses it.
            count = min(round(self.num_frames / multiple), clip.frames // multiple) * multiple
        else:
            fewest = ceil(self.min_frames / multiple) * multiple
            most = floor(min(self.max_frames, clip.frames) / multiple) * multiple
            wanted = clip.frames / clip.fps * self.fps
            count = floor(min(max(wanted, fewest), most, clip.frames) / multiple) * multiple
        if not multiple <= count <= clip.frames:
            raise ValueError(f"{count} frames of {clip.frames} were to be shown, at least {multiple}")
        return [int(number) for number in np.linspace(0, clip.frames - 1, count).round()]

    def pixels(self, count: int, multiple: int) -> tuple[int, int]:
        """Fewest and most pixels of each of `count` frames."""
        fewest = min(self.shortest_edge, self.longest_edge)
        share = self.total_pixels / count * multiple
        return fewest, int(min(self.longest_edge, max(share, fewest * 1.05)))

    def spread(self, clip: Clip, *, middle: bool) -> list[int]:
        """`num_frames` numbers of frames at equal steps, the first of each step or that in its `middle`.

        Short videos repeat frames.
        """
        assert self.num_frames is not None
        step = clip.frames / self.num_frames
        return [min(int(at * step + step / 2 * middle), clip.frames - 1) for at in range(self.num_frames)]


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
