"""Whether the file of a sound ends where it should: libsndfile passes over what is missing, as a shorter sound."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from swift.data.mp3_frames import counted, frames_of

SLACK = 8
"""Bytes by which heads of whole files are wrong: some programs count the first eight of the file."""
UNKNOWN = (0, 2**32 - 1, 2**64 - 1)
"""What stands for a length that was not known, as in what ffmpeg writes into a pipe."""
PAGE = 2**16
"""No page of OGG is longer."""
LAST = 4
"""The mark of a stream's last page."""


def whole(file: str | io.BytesIO) -> str | io.BytesIO:
    """The file as libsndfile hears all of it. Raises ValueError for one that was cut off."""
    with _opened(file) as opened:
        head, length = opened.read(1024), opened.seek(0, io.SEEK_END)
        if head[:4] == b"OggS":
            opened.seek(max(0, length - 2 * PAGE))
            check_pages(opened.read())
        elif head[:3] == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0"):
            opened.seek(0)
            return _heard_whole(opened.read()) or file
        stated, start = _chunks_end(opened, length) if head[:4] == b"caff" else _stated(head)
        missing = stated + start - length
        if stated not in UNKNOWN and missing > SLACK:
            raise ValueError(f"it ends {missing} bytes before its head says")
    return file


@contextmanager
def _opened(file: str | io.BytesIO) -> Iterator[BinaryIO]:
    if isinstance(file, str):
        with open(file, "rb") as opened:
            yield opened
    else:
        file.seek(0)
        yield file
        file.seek(0)


def _stated(head: bytes) -> tuple[int, int]:
    """How many bytes follow by the head of a file, and from which place on; nothing for kinds that say it elsewhere."""
    match head[:4], head[8:12]:
        case b"RIFF", b"WAVE":
            return int.from_bytes(head[4:8], "little"), 8
        case (b"RIFX", b"WAVE") | (b"FORM", b"AIFF" | b"AIFC"):
            return int.from_bytes(head[4:8], "big"), 8
        case b"RF64", b"WAVE":
            return int.from_bytes(head[20:28], "little"), 8
        case b"riff", _:  # Sony's W64
            return int.from_bytes(head[16:24], "little"), 0
        case b".snd", _:
            return int.from_bytes(head[8:12], "big"), int.from_bytes(head[4:8], "big")
        case b"NIST", _:
            said = dict(re.findall(rb"(\w+) -i (\d+)", head))
            keys = (b"sample_count", b"sample_n_bytes", b"channel_count")
            count, size, channels = (int(said.get(key, 1)) for key in keys)
            return 0 if b"embedded" in head else count * size * channels, 1024  # that is packed
    return 0, 0


def _chunks_end(file: BinaryIO, length: int) -> tuple[int, int]:
    """Where the chunks of Apple's CAF end, one of which may go on to the end of the file."""
    place = 8
    while place + 12 <= length:
        file.seek(place + 4)
        size = int.from_bytes(file.read(8), signed=True)
        if size < 0:
            return 0, 0
        place += 12 + size
    return place, 0


def check_pages(tail: bytes) -> None:
    """The last page of OGG says that it is the last. Raises ValueError where it does not, or is not whole."""
    start = tail.rfind(b"OggS")
    page = tail[start:]
    sizes = page[27 : 27 + page[26]] if start >= 0 and len(page) > 27 else b""
    missing = 27 + len(sizes) + sum(sizes) - len(page)
    if not sizes or missing > 0 or len(sizes) < page[26]:
        raise ValueError("its last page is cut off")
    if not page[5] & LAST:
        raise ValueError("no page is marked as its last one: it was cut off, or recorded without an end")


def _heard_whole(content: bytes) -> io.BytesIO | None:
    """An MP3 file with all of its frames counted; None where it says how many they are, or nobody can. Without such a
    count libsndfile takes all frames to be as large as the first ones. Raises ValueError for one that was cut off."""
    frames = frames_of(content)
    if frames is None or frames.stated == frames.count:
        return None
    stated = frames.stated or 0
    # Some programs count the frame in front with them.
    if frames.count + 1 < stated or (frames.count < stated and frames.lacking):
        raise ValueError(f"{frames.count} of {stated} frames are in it")
    if not stated and frames.lacking:
        raise ValueError(f"its last frame ends {frames.lacking} bytes early")
    return io.BytesIO(counted(content, frames))
