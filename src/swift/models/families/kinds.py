"""Images, videos and sounds as a family has them: counted by heads of files, opened, described, told apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from swift.catalog.entries import MediaText
from swift.core.log import once
from swift.models.families.base import Family, Size, Video, Waveform
from swift.prompts.images import BadAudio, BadImage, BadVideo, Clip

Source = str | tuple[str, ...]
"""Where a medium is, or the frames of a video one by one."""


class ImageReader(Protocol):
    """Opens what a row names: a path, an address or a data URL. Each raises BadImage."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What it does to images, as JSON has it; empty where it leaves them as they are."""
        ...

    def __call__(self, source: str) -> Image:
        """The decoded image."""
        ...

    def prepared(self, source: str, size: tuple[int, int] | None, resample: int) -> Image:
        """The decoded image, resized where a size is given."""
        ...

    def size(self, source: str) -> tuple[int, int]:
        """Width and height as they are in the file."""
        ...

    def rescaled(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the decoded image."""
        ...


class VideoReader(Protocol):
    """Opens videos. Each raises BadMedium."""

    def clip(self, source: Source) -> Clip:
        """What it is before decoding."""
        ...

    def frames(self, source: Source, numbers: Sequence[int], size: Size | None) -> Sequence[Image]:
        """The decoded frames of these numbers, in rising order, resized where a size is given."""
        ...


class SoundReader(Protocol):
    """Opens sounds. Each raises BadAudio."""

    def samples(self, source: str, rate: int) -> int:
        """How many samples it has at so many a second."""
        ...

    def __call__(self, source: str, rate: int) -> NDArray[np.float32]:
        """The samples, channels mixed into one."""
        ...


@dataclass(frozen=True)
class Readers:
    """One for each kind of media."""

    image: ImageReader
    video: VideoReader
    sound: SoundReader


class Images:
    """The images of a family."""

    def __init__(self, family: Family, readers: Readers):
        self._family = family
        self._read = readers.image

    def written(self, sources: Sequence[Any], form: MediaText) -> list[str]:
        """What stands in the prompt for each image of a row.

        Raises BadImage when one cannot be used or the model cannot take its size.
        """
        sizes = [self._stated(source) for source in sources]
        try:
            return self._family.written(sizes)
        except ValueError as error:
            given = ", ".join(f"{width}x{height}" for width, height in sizes)
            raise BadImage("an image does not fit the model", why=f"{given} pixels: {error}") from error

    def box_size(self, source: str) -> Size:
        """See `Family.box_size`. Raises BadImage."""
        return self._family.box_size(self._stated(source))

    def opened(self, source: Any) -> Image:
        """The decoded image, resized as its processor would do it first. Raises BadImage."""
        stated = self._stated(source)
        size = self._family.resized(stated)
        image = self._read.prepared(source, size, self._family.resample)
        if (size or stated) != image.size:
            raise BadImage(f"an image is {stated} by its head and {image.size} decoded", where=source[:200])
        return image

    def words(self, source: Any) -> str:
        """It in a few words."""
        return "image: {}x{}".format(*self._stated(source))

    def digest(self, source: Any) -> bytes:
        """The same for images that look the same."""
        image = self._read(source)
        return hashlib.sha256(repr(image.size).encode() + image.tobytes()).digest()

    def _stated(self, source: str) -> tuple[int, int]:
        return self._read.rescaled(*self._read.size(source))


class Videos:
    """The videos of a family."""

    def __init__(self, family: Family, readers: Readers):
        self._family = family
        self._read = readers.video

    def written(self, sources: Sequence[Any], form: MediaText) -> list[str]:
        """What stands in the prompt for each video. Raises BadMedium."""
        return [self._written(self._read.clip(source)) for source in sources]

    def _written(self, clip: Clip) -> str:
        try:
            return self._family.written_video(clip)
        except ValueError as error:
            given = f"{clip.frames} frames of {clip.width}x{clip.height} pixels"
            raise BadVideo("a video does not fit the model", why=f"{given}: {error}") from error

    def opened(self, source: Any) -> Video:
        """The frames that are shown. Raises BadMedium."""
        clip = self._read.clip(source)
        numbers = self._family.chosen(clip)
        return Video(clip, self._read.frames(source, numbers, self._family.frame_size(clip, len(numbers))))

    def words(self, source: Any) -> str:
        """It in a few words."""
        clip = self._read.clip(source)
        return f"video: {len(self._family.chosen(clip))} of {clip.frames} frames of {clip.width}x{clip.height}"

    def digest(self, source: Any) -> bytes:
        """The same for videos whose shown frames look the same, at the same times."""
        video = self.opened(source)
        digest = hashlib.sha256(repr((video.clip, [frame.size for frame in video.frames])).encode())
        for frame in video.frames:
            digest.update(frame.tobytes())
        return digest.digest()


class Sounds:
    """The sounds of a family."""

    def __init__(self, family: Family, readers: Readers):
        self._family = family
        self._read = readers.sound

    def written(self, sources: Sequence[Any], form: MediaText) -> list[str]:
        """What stands in the prompt for each sound. Raises BadAudio."""
        return [self._written(source, number, form) for number, source in enumerate(sources, 1)]

    def _written(self, source: str, number: int, form: MediaText) -> str:
        token, _ = self._family.tokens["audios"]
        own = form.audio if form.audio and token in form.audio else self._family.audio_form
        samples, longest = self._read.samples(source, self._family.rate), self._family.longest
        if samples > longest:
            once(f"the model hears {longest / self._family.rate:g} s of a sound: longer ones are cut off there")
        try:
            pieces = self._family.pieces(samples)
        except ValueError as error:
            raise BadAudio("a sound does not fit the model", why=str(error)) from error
        return own.replace("{{number}}", str(number)).replace(token, token * pieces)

    def opened(self, source: Any) -> Waveform:
        """The samples that are heard. Raises BadAudio."""
        return self._read(source, self._family.rate)[: self._family.longest]

    def words(self, source: Any) -> str:
        """It in a few words."""
        samples, rate = self._read.samples(source, self._family.rate), self._family.rate
        cut = f" of {samples / rate:.1f}" if samples > self._family.longest else ""
        return f"audio: {min(samples, self._family.longest) / rate:.1f}{cut} s"

    def digest(self, source: Any) -> bytes:
        """The same for sounds that are the same."""
        return hashlib.sha256(b"sound" + self.opened(source).tobytes()).digest()


KINDS = {"images": Images, "videos": Videos, "audios": Sounds}
