"""Whether the file of a video ends where it should: FFmpeg passes over what is missing, as a shorter video.

Only MP4 and its kind need no look: without all of their frames they do not open, or the frames are missed.
"""

from __future__ import annotations

import io
import mmap
import re
from collections.abc import Callable

from swift.data.sound_ends import check_pages

SLACK = 8
FLV_TAGS = (8, 9, 18)
"""Sound, pictures, what is told of them."""
SEGMENT = b"\x18\x53\x80\x67"
MXF = b"\x06\x0e\x2b\x34"
ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
"""The part of the head of ASF that says how large the file is."""
SYSTEM_PACKET = re.compile(rb"\x00\x00\x01[\xbb-\xef]")
"""Begins a packet of an MPEG program stream; what the packets hold has other numbers."""
MARKED = "it has no end, which others of its kind have: it was cut off"

Content = bytes | mmap.mmap


def check_end(file: str | io.BytesIO) -> None:
    """Raises ValueError for the file of a video that was cut off."""
    if isinstance(file, io.BytesIO):
        return _check(file.getvalue())
    with open(file, "rb") as opened:
        if opened.seek(0, io.SEEK_END):
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
                _check(content)


def _check(content: Content) -> None:
    if (end := ENDS.get(content[:4], _of_transport_stream)(content)) > len(content):
        raise ValueError(f"it ends {end - len(content)} bytes early")


def _number(content: Content, place: int, size: int) -> int:
    return int.from_bytes(content[place : place + size])


def _little(content: Content, place: int) -> int:
    return int.from_bytes(content[place : place + 4], "little")


def _of_gif(content: Content) -> int:
    def colours(place: int) -> int:
        packed = content[place] if place < len(content) else 0
        return 3 * 2 ** (1 + packed % 8) if packed & 0x80 else 0

    place = 13 + colours(10)
    while place < len(content):
        kind = content[place]
        if kind == 0x3B:
            return place
        if kind not in (0x21, 0x2C):
            break
        place += 2 if kind == 0x21 else 11 + colours(place + 9)
        while place < len(content) and content[place]:  # blocks of up to 255 bytes, of which none ends them
            place += 1 + content[place]
        place += 1
    raise ValueError(MARKED)


def _of_apng(content: Content) -> int:
    place = 8
    while place + 8 <= len(content):
        if content[place + 4 : place + 8] == b"IEND":
            return place
        place += 12 + _number(content, place, 4)
    raise ValueError(MARKED)


def _of_avi(content: Content) -> int:
    """The frames are in lists; an index behind them is made again where it is missing."""
    place, end = 0, 0
    while place + 8 <= len(content):
        kind, size = content[place : place + 4], _little(content, place + 4)
        if kind == b"LIST":
            end = max(end, place + 8 + size if size not in (0, 2**32 - 1) else 0)
        place += 12 if kind == b"RIFF" else 8 + size + size % 2
    return end - SLACK


def _of_flv(content: Content) -> int:
    place = _number(content, 5, 4) + 4
    while place < len(content):
        if content[place] & 0x1F not in FLV_TAGS:
            return 0
        place += 11 + _number(content, place + 1, 3) + 4
    return place - 4  # the length of the last one stands behind it once more


def _of_ivf(content: Content) -> int:
    place = 32
    while place < len(content):
        place += 12 + _little(content, place)
    return place


def _of_matroska(content: Content) -> int:
    """Where its segment ends. One that does not say how long it is, as of what is written while it is shown, ends with
    the elements in it. 0 for what is not understood."""
    place = 0
    while place < len(content):
        name = _width(content, place)
        width = _width(content, place + name)
        if name > 4 or width > 8:
            return 0
        segment = content[place : place + name] == SEGMENT
        size = _number(content, place + name, width) - (1 << 7 * width)
        known = 0 <= size < (1 << 7 * width) - 1
        place += name + width + (size if known else 0)
        if segment and known:
            return place
    return place


def _width(content: Content, place: int) -> int:
    """Bytes of a number whose zeros in front say it."""
    return 9 - content[place].bit_length() if place < len(content) else 1


def _of_mxf(content: Content) -> int:
    place = 0
    while content[place : place + 4] == MXF and place + 17 <= len(content):
        first = content[place + 16]
        width = first & 0x7F if first & 0x80 else 0
        place += 17 + width + (_number(content, place + 17, width) if width else first)
    return place


def _of_program_stream(content: Content) -> int:
    start = max(0, len(content) - 2**17)
    places = [start + found.start() for found in SYSTEM_PACKET.finditer(content[start:])]
    return places[-1] + 6 + _number(content, places[-1] + 4, 2) if places else 0


def _of_transport_stream(content: Content) -> int:
    """What nothing else begins like: packets of one size, of which each begins with a G, or four bytes earlier."""
    for start, size in ((0, 188), (4, 192), (0, 204)):
        if all(content[place : place + 1] == b"G" for place in range(start, start + 5 * size, size)):
            return -(-len(content) // size) * size
    return 0


def _of_asf(content: Content) -> int:
    place = content.find(ASF_FILE, 0, 2**16)
    return int.from_bytes(content[place + 40 : place + 48], "little") if place >= 0 else 0


def _of_ogg(content: Content) -> int:
    check_pages(content[-(2**17) :])
    return 0


ENDS: dict[bytes, Callable[[Content], int]] = {
    b"GIF8": _of_gif,
    b"\x89PNG": _of_apng,
    b"OggS": _of_ogg,
    b"RIFF": _of_avi,
    b"FLV\x01": _of_flv,
    b"DKIF": _of_ivf,
    b"\x1aE\xdf\xa3": _of_matroska,
    b"0&\xb2u": _of_asf,
    b"\0\0\1\xba": _of_program_stream,
    MXF: _of_mxf,
}
"""Where a file ends by what it says, 0 where it says nothing, by its first bytes."""
