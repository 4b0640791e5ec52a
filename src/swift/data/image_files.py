"""Images of rows, measured and decoded in one way everywhere: upright, as sRGB, whole or not at all."""

from __future__ import annotations

import io
import mmap
import zlib
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from PIL import Image, ImageCms, ImageOps
from PIL import __version__ as PIL_VERSION

from swift.core.log import once
from swift.data.local_media import state_of
from swift.data.missing_pixels import PNG, missing_pixels
from swift.data.pixel_cache import PixelCache
from swift.prompts.image_header import FORMATS, PIL_FAULTS, bad_image, bytes_of, checked_size, named, upright_size
from swift.prompts.images import BadImage

PREPARED = "v3"
"""Changes with what is done to an image here, so that pixels an older version made are not taken for its own."""


@dataclass(frozen=True)
class ImageReader:
    """Opens the images of rows. What was fetched is kept for good, beside the media of datasets."""

    max_pixels: int | None = None
    """Images of more pixels are made this large first, in their own shape (`--rescale_image`)."""
    cache: PixelCache | None = None
    """Where pixels are kept."""

    @property
    def facts(self) -> dict[str, int]:
        """What it does to images; empty where it leaves them as they are."""
        return {} if self.max_pixels is None else {"rescale_image": self.max_pixels}

    def __call__(self, source: str) -> Image.Image:
        """The image at a path, in a data URL or at an http(s) address, decoded to its end: RGB, upright.

        Raises BadImage with the reason.
        """
        image = _of_data(source) if source.startswith("data:") else _of_file(*state_of(source, BadImage, _is_image))
        size = self.rescaled(*image.size)
        return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)

    def prepared(self, source: str, size: tuple[int, int] | None, resample: int) -> Image.Image:
        """The same image resized to `size`, where that is given: decoded now, or kept from another time."""
        if self.cache is None:
            return self._prepared(source, size, resample)
        how = f"{PREPARED} Pillow {PIL_VERSION}, at most {self.max_pixels} pixels, {size} by {resample}"
        if source.startswith("data:"):
            identity, content = source, partial(bytes_of, source)
        else:
            path, changed, length = state_of(source, BadImage, _is_image)
            identity, content = f"{path}\0{changed}\0{length}", Path(path).read_bytes
        (image,) = self.cache.images(identity, content, how, lambda: [self._prepared(source, size, resample)])
        return image

    def _prepared(self, source: str, size: tuple[int, int] | None, resample: int) -> Image.Image:
        image = self(source)
        return image if size in (None, image.size) else image.resize(size, Image.Resampling(resample))

    def size(self, source: str) -> tuple[int, int]:
        """Width and height before rescaling, without decoding what can be seen to be whole. Raises BadImage."""
        if source.startswith("data:"):
            return _of_data(source).size
        return _size_of_file(*state_of(source, BadImage, _is_image))

    def rescaled(self, width: int, height: int) -> tuple[int, int]:
        """The size that an image of this size is given to the model's processor with."""
        if self.max_pixels is None or width * height <= self.max_pixels:
            return width, height
        ratio = width / height
        new_height = (self.max_pixels / ratio) ** 0.5
        return max(1, int(new_height * ratio)), max(1, int(new_height))


@lru_cache(maxsize=4)
def _of_file(path: str, changed: int, size: int) -> Image.Image:
    """The last few images stay, as a row is first looked at and then made into pixels."""
    return _decoded(path, path)


@lru_cache(maxsize=4)
def _of_data(source: str) -> Image.Image:
    return _decoded(io.BytesIO(bytes_of(source)), source)


@lru_cache(maxsize=4096)
def _size_of_file(path: str, changed: int, size: int) -> tuple[int, int]:
    stated = upright_size(path)
    if _seen_to_be_whole(path):
        return stated
    return _of_file(path, changed, size).size


def _seen_to_be_whole(path: str) -> bool:
    """Whether a file ends where its format says, and its checksums hold; False where only decoding can tell."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:8] == PNG:
            return _whole_png(content)
        if content[:3] == b"\xff\xd8\xff":
            # Behind the start of a scan 0xff stands before 0xd9 at the end alone; a thumbnail lies before the scans.
            if content[-2:] == b"\xff\xd9":
                return content.find(b"\xff\xda") >= 0
            scan = content.rfind(b"\xff\xda")
            return scan >= 0 and content.find(b"\xff\xd9", scan) >= 0
    return False


def _whole_png(content: mmap.mmap) -> bool:
    place, pixels = len(PNG), False
    while place + 12 <= len(content):
        size = int.from_bytes(content[place : place + 4])
        kind, end = content[place + 4 : place + 8], place + 8 + size
        if zlib.crc32(content[place + 4 : end]).to_bytes(4) != content[end : end + 4]:
            return False
        if kind == b"IEND":
            return pixels
        if kind == b"eXIf" and pixels:
            return False  # a rotation that is not in the head
        pixels = pixels or kind == b"IDAT"
        place = end + 4
    return False


def _is_image(body: bytes) -> None:
    upright_size(io.BytesIO(body))


def _decoded(file: str | io.BytesIO, source: str) -> Image.Image:
    try:
        content = Path(file).read_bytes() if isinstance(file, str) else file.getvalue()
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            checked_size(image, source)
            if getattr(image, "is_animated", False):  # their number would be counted, and may be a million
                once("images of several frames are in the rows: the first frame of each is used")
            image.load()
            if why := missing_pixels(image, content):
                raise BadImage("broken image", why=why, where=named(source))
            ImageOps.exif_transpose(image, in_place=True)
            return _rgb(_srgb(image, source))
    except PIL_FAULTS as error:
        raise bad_image(error, source) from error


def _srgb(image: Image.Image, source: str) -> Image.Image:
    """The image in the colours of screens, where a profile says that it has others."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK", "L"):
        return image
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(given):
            return image
        seen = ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        once("colour profiles that cannot be read are left out", example=f"that of {named(source)}")
        return image
    return image if seen is None else seen


def _rgb(image: Image.Image) -> Image.Image:
    """Transparent pixels on white: what is hidden below full transparency must not show. 16 bits become 8, and so do
    fractions from 0 to 1. Raises ValueError for pixels that are no numbers."""
    if image.mode.startswith("I") or image.mode == "F":
        values: tuple[float, float] = image.getextrema()  # pyright: ignore[reportAssignmentType]  # one band
        if not values[0] <= values[1]:
            raise ValueError("its pixels are no numbers")
        deep = image.mode.startswith("I;16") or (values[0] >= 0 and values[1] > 255)
        scale = 255 / 65535 if deep else 255 if image.mode == "F" and values[0] >= 0 and values[1] <= 1 else 1
        return image.convert("F").point(lambda value: value * scale).convert("L").convert("RGB")
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, (255, 255, 255, 255)), seen).convert("RGB")
    return image.convert("RGB")
