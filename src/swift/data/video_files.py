"""Videos of rows: what they are by their containers, and the frames that a model is shown, decoded by PyAV."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from swift.core.log import once
from swift.core.optional_imports import need
from swift.data.image_fetch import Bounds
from swift.data.image_files import PREPARED, ImageReader
from swift.data.local_media import state_of
from swift.data.video_ends import check_end
from swift.prompts.image_header import MAX_PIXELS, bytes_of, named
from swift.prompts.images import BadVideo, Clip

BOUNDS = Bounds(bytes=2**30, seconds=300.0)
WHOLE = 0.95
"""Share of the frames that a container states which have to be there: videos that were cut without being encoded anew
state some that are not shown, and the last one stands for these."""
TICKS = 1e6
"""Of FFmpeg's clock a second."""
LISTED_FPS = 2.0
"""Frames a second of videos that are a list of frames: as many as are shown of a file."""
BICUBIC = Image.Resampling.BICUBIC
QUARTERS = (90, 270)
"""Rotations that lay a video on its side."""

Source = str | tuple[str, ...]


@dataclass(frozen=True)
class VideoReader:
    """Opens the videos of rows: files, addresses, data URLs, and lists of frames."""

    image: ImageReader
    """For lists of frames."""

    def clip(self, source: Source) -> Clip:
        """What a video is, with its first frame decoded alone. Raises BadVideo."""
        if isinstance(source, tuple):
            if not source:
                raise BadVideo("broken video", why="no frames")
            width, height = self.image.rescaled(*self.image.size(source[0]))
            return Clip(width, height, len(source), LISTED_FPS, listed=True)
        if source.startswith("data:"):
            return _clip_of_data(source)
        return _clip_of_file(*state_of(source, BadVideo, _is_video, BOUNDS))

    def frames(
        self, source: Source, numbers: Sequence[int], size: tuple[int, int] | None = None
    ) -> Sequence[Image.Image]:
        """The frames of these numbers, which rise, as RGB and upright, of a `size` where that is given.

        Raises BadVideo where one is not there.
        """
        if isinstance(source, tuple):
            return [self.image.prepared(source[number], size, BICUBIC) for number in numbers]
        if self.image.cache is None:
            return _resized(self._decoded(source, numbers), size)
        how = f"{PREPARED} frames {numbers} {size}"
        if source.startswith("data:"):
            identity, content = source, partial(bytes_of, source, BadVideo)
        else:
            path, changed, length = state_of(source, BadVideo, _is_video, BOUNDS)
            identity, content = f"{path}\0{changed}\0{length}", Path(path).read_bytes
        return self.image.cache.images(identity, content, how, lambda: _resized(self._decoded(source, numbers), size))

    def _decoded(self, source: str, numbers: Sequence[int]) -> tuple[Image.Image, ...]:
        if source.startswith("data:"):
            return _frames_of_data(source, tuple(numbers))
        return _frames_of_file(*state_of(source, BadVideo, _is_video, BOUNDS), tuple(numbers))


def _resized(frames: Sequence[Image.Image], size: tuple[int, int] | None) -> list[Image.Image]:
    return [frame if size in (None, frame.size) else frame.resize(size, BICUBIC) for frame in frames]


def _is_video(body: bytes) -> None:
    clip_of(io.BytesIO(body), "the address")


@lru_cache(maxsize=4096)
def _clip_of_file(path: str, changed: int, size: int) -> Clip:
    return clip_of(path, path)


@lru_cache(maxsize=4)
def _clip_of_data(source: str) -> Clip:
    return clip_of(io.BytesIO(bytes_of(source, BadVideo)), source)


@lru_cache(maxsize=2)
def _frames_of_file(path: str, changed: int, size: int, numbers: tuple[int, ...]) -> tuple[Image.Image, ...]:
    """The last few stay, as a row is first looked at and then made into pixels."""
    return _frames(path, numbers, path)


@lru_cache(maxsize=2)
def _frames_of_data(source: str, numbers: tuple[int, ...]) -> tuple[Image.Image, ...]:
    return _frames(io.BytesIO(bytes_of(source, BadVideo)), numbers, source)


FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,mpegts,mpeg,ivf,ogg,gif,apng,mxf"
ALONE = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
"""Containers that hold what they show and say when, which bare streams of pictures do not. FFmpeg would follow
playlists and session descriptions to other files, to other machines and to ports of this one, whoever sent them."""


@contextmanager
def _opened(file: str | io.BytesIO, source: str) -> Iterator[tuple[Any, Any]]:
    """Container and video stream. Raises BadVideo for what cannot be read, in the block too."""
    av = need("av", extra="video", why="reading videos")
    try:
        # A name with a colon is a path all the same.
        with av.open(f"file:{file}" if isinstance(file, str) else file, options=dict(ALONE)) as container:
            stream = container.streams.best("video")
            if stream is None or stream.disposition & av.stream.Disposition.attached_pic:  # the cover of a sound
                raise BadVideo("broken video", why="it has no pictures", where=named(source))
            if stream.codec_context is None:
                raise BadVideo("broken video", why="no kind of pictures that is known", where=named(source))
            stream.thread_type = "AUTO"
            yield container, stream
    except av.ArgumentError as error:
        why = "no container of videos that is known, such as MP4, MOV, MKV, WebM and AVI"
        raise BadVideo("broken video", why=why, where=named(source)) from error
    except av.FFmpegError as error:
        raise BadVideo("broken video", why=error.strerror, where=named(source)) from error
    except (OSError, ValueError, EOFError, OverflowError, MemoryError) as error:
        raise BadVideo("broken video", why=str(error) or type(error).__name__, where=named(source)) from error


def clip_of(file: str | io.BytesIO, source: str) -> Clip:
    """What a video is; `source` is its name for messages. Raises BadVideo."""
    with _opened(file, source) as (container, stream):
        check_end(file)
        width, height = stream.codec_context.width, stream.codec_context.height
        if not width or not height or width * height > MAX_PIXELS:
            raise BadVideo("broken video", why=f"frames of {width}x{height} pixels", where=named(source))
        first = next(container.decode(stream), None)
        if first is None:
            raise BadVideo("broken video", why="it has no frames", where=named(source))
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            raise BadVideo("broken video", why="no number of frames a second", where=named(source))
        # Some containers do not say how many frames they hold; their packets are counted, and not decoded.
        count = stream.frames or _packets(file, source, float(1 / rate))
        clip = Clip(first.width, first.height, count, float(rate))
        return replace(clip, width=first.height, height=first.width) if first.rotation % 360 in QUARTERS else clip


def _packets(file: str | io.BytesIO, source: str, step: float) -> int:
    """How many frames `step` seconds apart there are. Raises BadVideo where the file ends before its head says."""
    if isinstance(file, io.BytesIO):
        file = io.BytesIO(file.getvalue())
    count, end = 0, 0.0
    with _opened(file, source) as (container, stream):
        for packet in container.demux():
            count += packet.stream is stream and packet.size > 0
            if packet.pts is not None and packet.time_base is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        stated = (container.duration or 0) / TICKS
    if end + step < WHOLE * stated:
        why = f"it ends after {end:.1f} s, and its head says {stated:.1f} s"
        raise BadVideo("broken video", why=why, where=named(source))
    return count


def _frames(file: str | io.BytesIO, numbers: tuple[int, ...], source: str) -> tuple[Image.Image, ...]:
    wanted, shown = set(numbers), {}
    count, last, whole, guessed = 0, None, False, False
    with _opened(file, source) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            count, last = number + 1, frame
            # The first frames of a video that was cut without being encoded anew lack what they go by.
            guessed = guessed or (frame.is_corrupt and (whole or frame.key_frame))
            whole = whole or not frame.is_corrupt
            if number in wanted:
                shown[number] = _upright(frame)
            if number >= numbers[-1]:
                break
    if last is None or count < WHOLE * (numbers[-1] + 1):
        raise BadVideo("broken video", why=f"frame {count + 1} cannot be decoded", where=named(source))
    if guessed:
        once("videos have damaged frames, which are seen as the decoder guesses them", example=named(source))
    if missing := wanted - shown.keys():
        shown |= dict.fromkeys(missing, _upright(last))
    return tuple(shown[number] for number in numbers)


def _upright(frame: Any) -> Image.Image:
    image = frame.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation % 360 else image
