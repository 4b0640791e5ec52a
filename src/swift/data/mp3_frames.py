"""MP3 files frame by frame: how many there are, where their heads count fewer or say nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

KBITS = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""A second, by what a frame says; MPEG 2.5 (0) has those of MPEG 2."""
RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
SIDE = {(3, False): 32, (3, True): 17, (2, False): 17, (2, True): 9, (0, False): 17, (0, True): 9}
"""Bytes behind a frame's head that say how its samples are packed, by version and whether it has one channel."""
NAMES = (b"Xing", b"Info")
LOOKED_THROUGH = 2**22
"""How far the next frame is looked for behind what is none."""


@dataclass(frozen=True)
class Frames:
    """What is in an MP3 file."""

    start: int
    """Where the first frame begins."""
    first: int
    """Its head."""
    count: int
    """Whole frames with samples."""
    stated: int | None
    """How many there are by the frame in front of them, which has none itself."""
    end: int
    """Where the last one ends."""
    lacking: int
    """Bytes of one more that the file does not hold."""


def frames_of(content: bytes) -> Frames | None:
    """The frames of an MP3 file; None for other files, and those whose frames do not say how long they are."""
    start = _behind_tags(content, 0)
    first = _head(content, start)
    if not (size := _size(first)) or not _size(_head(content, start + size)):
        return None
    stated = _stated(content[start : start + size], first)
    count, end, lacking = 0, start, 0
    for place, length in _walk(content, start, first):
        lacking = max(0, place + length - len(content))
        count, end = (count, end) if lacking else (count + 1, place + length)
    return Frames(start, first, count - (stated is not None), stated, end, lacking)


def counted(content: bytes, frames: Frames) -> bytes:
    """The same sound, behind a frame that says how many follow, as libsndfile hears no more than it takes them for."""
    # The largest frame of its kind, without a checksum: there is room for what it says.
    head = (frames.first | 0x10000) & ~0xF000 | 0xE000
    size, side = _size(head), SIDE[_kind(head)]
    start = frames.start + (_size(frames.first) if frames.stated is not None else 0)
    body = head.to_bytes(4) + bytes(side) + NAMES[0] + (1).to_bytes(4) + frames.count.to_bytes(4)
    return body.ljust(size, b"\0") + content[start : frames.end]


def _walk(content: bytes, place: int, first: int) -> Iterator[tuple[int, int]]:
    """Where frames begin, and how long they are. What lies between is passed over; the last may be cut off."""
    while place + 4 <= len(content):
        head = _head(content, place)
        if _like(head, first) and (size := _size(head)):
            yield place, size
            place += size
        elif (behind := _behind_tags(content, place)) > place:
            place = behind
        else:
            place = _next(content, place + 1, first)


def _next(content: bytes, place: int, first: int) -> int:
    """Where two frames begin that follow each other; the end of the file where there are none near."""
    last = min(len(content), place + LOOKED_THROUGH)
    while (place := content.find(b"\xff", place, last)) >= 0:
        head = _head(content, place)
        if _like(head, first) and (size := _size(head)) and _like(_head(content, place + size), first):
            return place
        place += 1
    return len(content)


def _head(content: bytes, place: int) -> int:
    return int.from_bytes(content[place : place + 4]) if place + 4 <= len(content) else 0


def _like(head: int, first: int) -> bool:
    """Whether a head is one, of the same version, layer and rate."""
    return (head ^ first) & 0xFFFE0C00 == 0


def _size(head: int) -> int:
    """Bytes of a frame of layer III with its head; 0 for what is none or does not say."""
    version, kbits, rate = head >> 19 & 3, head >> 12 & 15, head >> 10 & 3
    if head >> 21 != 0x7FF or version == 1 or head >> 17 & 3 != 1 or kbits in (0, 15) or rate == 3:
        return 0
    return (144 if version == 3 else 72) * KBITS[version or 2][kbits] * 1000 // RATES[version][rate] + (head >> 9 & 1)


def _kind(head: int) -> tuple[int, bool]:
    return head >> 19 & 3, head >> 6 & 3 == 3


def _stated(frame: bytes, head: int) -> int | None:
    """How many frames follow by a first one without samples; 0 where it does not say."""
    place = 4 + SIDE[_kind(head)]
    if frame[place : place + 4] not in NAMES:
        return None
    return int.from_bytes(frame[place + 8 : place + 12]) if frame[place + 7] & 1 else 0


def _behind_tags(content: bytes, place: int) -> int:
    """Where the tags at a place end, of which the first says its length in bytes of seven bits."""
    while content[place : place + 3] == b"ID3" and place + 10 <= len(content):
        length = 0
        for byte in content[place + 6 : place + 10]:
            length = length << 7 | byte & 0x7F
        place += 10 + length
    return place
