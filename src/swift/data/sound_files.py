"""Sounds of rows: how long they are by their heads, and what a model hears of them: one channel, at its rate."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swift.core.optional_imports import need
from swift.data.image_fetch import Bounds
from swift.data.local_media import state_of
from swift.data.sound_ends import whole
from swift.prompts.image_header import bytes_of, named
from swift.prompts.images import BadAudio

BOUNDS = Bounds(bytes=2**28, seconds=120.0)
KINDS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3", "NIST", "HTK")
"""Files of which it can be seen that they are whole. libsndfile reads others, cut off or not, as what is there."""
LENGTH_UNKNOWN = 2**63 - 1
MAX_SAMPLES = 2**29
"""Of all channels: more than that is two gigabytes decoded."""


@dataclass(frozen=True)
class SoundReader:
    """Opens the sounds of rows: WAV, FLAC, OGG and MP3 in files, at addresses and in data URLs."""

    def samples(self, source: str, rate: int) -> int:
        """How many samples a sound has at so many a second, without decoding it. Raises BadAudio."""
        if source.startswith("data:"):
            return _count_of_data(source, rate)
        return _count_of_file(*state_of(source, BadAudio, _is_sound, BOUNDS), rate)

    def __call__(self, source: str, rate: int) -> NDArray[np.float32]:
        """The samples, (number of samples,), channels mixed into one. Raises BadAudio."""
        if source.startswith("data:"):
            return _of_data(source, rate)
        return _of_file(*state_of(source, BadAudio, _is_sound, BOUNDS), rate)


def _is_sound(body: bytes) -> None:
    count_of(io.BytesIO(body), "the address", 16000)


@lru_cache(maxsize=4096)
def _count_of_file(path: str, changed: int, size: int, rate: int) -> int:
    return count_of(path, path, rate)


@lru_cache(maxsize=4)
def _count_of_data(source: str, rate: int) -> int:
    return count_of(io.BytesIO(bytes_of(source, BadAudio)), source, rate)


@lru_cache(maxsize=4)
def _of_file(path: str, changed: int, size: int, rate: int) -> NDArray[np.float32]:
    """The last few stay, as a row is first looked at and then made into features."""
    return _decoded(path, path, rate)


@lru_cache(maxsize=4)
def _of_data(source: str, rate: int) -> NDArray[np.float32]:
    return _decoded(io.BytesIO(bytes_of(source, BadAudio)), source, rate)


@contextmanager
def _opened(file: str | io.BytesIO, source: str) -> Iterator[Any]:
    """The file as soundfile has it. Raises BadAudio for what cannot be read, in the block too."""
    soundfile = need("soundfile", extra="audio", why="reading sounds")
    try:
        with soundfile.SoundFile(whole(file)) as sound:
            if sound.format not in KINDS:
                why = f"{sound.format} does not tell where it ends; WAV, FLAC, OGG and MP3 do"
                raise BadAudio("broken audio", why=why, where=named(source))
            if sound.frames == LENGTH_UNKNOWN:
                why = "its head does not say how long it is, as of what is written into a pipe; write it into a file"
                raise BadAudio("broken audio", why=why, where=named(source))
            if not sound.frames:
                raise BadAudio("broken audio", why="it has no samples", where=named(source))
            if sound.frames * sound.channels > MAX_SAMPLES:
                why = f"{sound.frames} samples of {sound.channels} channels"
                raise BadAudio("audio too large", why=why, where=named(source))
            yield sound
    except soundfile.LibsndfileError as error:
        raise BadAudio(
            "broken audio", why=error.error_string.removeprefix("Error : ").rstrip("."), where=named(source)
        ) from error
    except (soundfile.SoundFileError, OSError, ValueError, TypeError, MemoryError) as error:
        raise BadAudio("broken audio", why=str(error) or type(error).__name__, where=named(source)) from error


def count_of(file: str | io.BytesIO, source: str, rate: int) -> int:
    """Samples of a sound at `rate`; `source` is its name for messages. Raises BadAudio."""
    with _opened(file, source) as sound:
        return -(-sound.frames * rate // sound.samplerate)


def _decoded(file: str | io.BytesIO, source: str, rate: int) -> NDArray[np.float32]:
    with _opened(file, source) as sound:
        own_rate, stated = sound.samplerate, sound.frames
        samples = sound.read(dtype="float32", always_2d=True).mean(axis=1)
    if len(samples) != stated:
        why = f"{stated} samples by its head and {len(samples)} decoded"
        raise BadAudio("broken audio", why=why, where=named(source))
    if not np.isfinite(samples).all():
        raise BadAudio("broken audio", why="samples that are no numbers", where=named(source))
    if own_rate == rate:
        return samples
    # As librosa does by default, with which the 2.5 release reads sounds.
    soxr = need("soxr", extra="audio", why="sounds of another rate than the model's")
    resampled = soxr.resample(samples, own_rate, rate, quality="HQ")
    count = -(-stated * rate // own_rate)
    return np.pad(resampled, (0, max(0, count - len(resampled))))[:count].astype(np.float32)
