"""Images of every kind of damage and mode: each is the picture that people see, or is named with what is wrong."""

from __future__ import annotations

import base64
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.GifImagePlugin import GifImageFile

from swift.core.log import another_command
from swift.data.image_files import ImageReader
from swift.prompts.images import BadImage

read = ImageReader()


def red(mode: str = "RGB", size: tuple[int, int] = (40, 20)) -> Image.Image:
    return Image.new("RGB", size, (200, 30, 20)).convert(mode)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


def png(width: int, height: int, pixels: bytes = b"", interlaced: int = 0) -> bytes:
    """A PNG whose head says so, one bit a pixel."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def with_thumbnail(image: Image.Image) -> bytes:
    """A JPEG with a whole JPEG in its EXIF."""
    exif = b"Exif\x00\x00" + saved(red(size=(8, 8)), "JPEG")
    return saved(image, "JPEG", exif=exif)


DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no image format"),
    "text": (b"no image at all", "no image format"),
    "page": (b"<!doctype html><html>404</html>", "no image format"),
    "eps": (saved(red(), "EPS"), "no image format"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "no image format"),
    "head_of_png": (saved(noise(), "PNG")[:20], "image"),
    "cut_png": (saved(noise(), "PNG")[:5000], "image"),
    "cut_jpeg": (saved(noise(), "JPEG")[:1500], "truncated"),
    "cut_jpeg_with_thumbnail": (with_thumbnail(noise())[:-900], "truncated"),
    "cut_progressive": (saved(noise(), "JPEG", progressive=True)[:1500], "truncated"),
    "cut_webp": (saved(noise(), "WEBP", lossless=True)[:3000], "image"),
    "cut_gif": (saved(noise(), "GIF")[:900], "image"),
    "cut_bmp": (saved(noise(), "BMP")[:900], "truncated"),
    "cut_tiff": (saved(noise(), "TIFF")[:900], ""),
    "broken_png": (flipped(saved(noise(), "PNG"), 3000), ""),
    "no_pixels_png": (png(40, 40), ""),
    "few_rows_png": (png(40, 40, b"\0\xff\xff\xff\xff\xff" * 39), "234 of 240 bytes of pixels"),
    "another_checksum_png": (flipped(saved(red(), "PNG"), -14), "checksum"),
    "cut_and_ended_jpeg": (saved(noise(), "JPEG")[:1500] + b"\xff\xd9", "end before it does"),
    "cut_and_ended_grey": (saved(noise().convert("L"), "JPEG")[:1500] + b"\xff\xd9", "end before it does"),
    "cut_and_ended_cmyk": (saved(noise().convert("CMYK"), "JPEG")[:3000] + b"\xff\xd9", "end before it does"),
    "zero_wide": (png(0, 40), ""),
    "zero_high": (png(40, 0), ""),
    "bomb": (png(60000, 60000), "too large"),
    "huge_head": (png(2**31 - 1, 2**31 - 1), "too large"),
    "zip": (b"PK\x03\x04" + b"\0" * 100, "no image format"),
    "pickle": (b"\x80\x04\x95" + b"\0" * 100, "no image format"),
    "null_bytes": (b"\0" * 4096, "no image format"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_images_are_named_when_measured(name: str, tmp_path: Path) -> None:
    content, reason = DAMAGED[name]
    path = tmp_path / f"{name}.jpg"
    path.write_bytes(content)
    for source in (str(path), "data:image/png;base64," + base64.b64encode(content).decode()):
        # What ends as it should is only seen to lack pixels when it is decoded, which costs the row later.
        ended = ("no_pixels_png", "few_rows_png", "cut_and_ended_jpeg", "cut_and_ended_grey", "cut_and_ended_cmyk")
        for work in (read,) if name in ended and source == str(path) else (read.size, read):
            with pytest.raises(BadImage) as fault:
                work(source)
            assert reason in f"{fault.value.what} {fault.value.why}" and len(str(fault.value)) < 400


def test_data_urls_are_read_as_browsers_read_them(tmp_path: Path) -> None:
    text = base64.b64encode(saved(noise(), "PNG")).decode()
    lines = "\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    forms = [f"image/jpeg;base64,{text}", f";base64,{lines}", f"image/png;charset=utf-8;base64,{text.rstrip('=')}"]
    forms += [f"image/png; base64, {text}\n", f"image/png;BASE64,{text.replace('+', '%2B').replace('/', '%2F')}"]
    for form in forms:
        assert np.array_equal(np.asarray(read(f"data:{form}")), np.asarray(noise())), form[:40]


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for source in (str(tmp_path), str(tmp_path / "gone.png"), "", "a\0b.png", "data:", "data:image/png;base64,%%"):
        for work in (read.size, read):
            with pytest.raises(BadImage):
                work(source)
    for special in (str(tmp_path / "pipe"), "/dev/zero"):
        with pytest.raises(BadImage, match="no file"):
            read.size(special)


MODES: dict[str, Callable[[], bytes]] = {
    "rgb": lambda: saved(red(), "PNG"),
    "rgba": lambda: saved(red("RGBA"), "PNG"),
    "cmyk": lambda: saved(red("CMYK"), "JPEG", quality=100),
    "palette": lambda: saved(red().quantize(4), "PNG"),
    "gif": lambda: saved(red().quantize(4), "GIF"),
    "animated": lambda: saved(red(), "GIF", save_all=True, append_images=[Image.new("RGB", (40, 20), "blue")]),
    "webp": lambda: saved(red(), "WEBP", lossless=True),
    "lab": lambda: saved(
        ImageCms.profileToProfile(
            red(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
        or red(),
        "TIFF",
    ),
    "bmp": lambda: saved(red(), "BMP"),
    "progressive": lambda: saved(red(), "JPEG", quality=100, progressive=True),
    "thumbnail": lambda: with_thumbnail(red()),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_is_seen_as_it_looks(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.dat"  # a name says nothing about what is inside
    path.write_bytes(MODES[name]())
    seen = read(str(path))
    assert seen.mode == "RGB" and seen.size == read.size(str(path)) == (40, 20)
    assert np.abs(np.asarray(seen, dtype=int) - [200, 30, 20]).max() <= (40 if name == "lab" else 6), name


def test_pixels_that_are_black_or_grey_and_there_are_no_missing_ones(tmp_path: Path) -> None:
    for number, level in enumerate((0, 127, 128)):
        plain = Image.new("RGB", (41, 23), (level, level, level))
        whole = [saved(plain, "PNG"), saved(plain.convert("L"), "PNG"), saved(plain.convert("1"), "PNG")]
        whole += [saved(Image.new("RGBA", (41, 23)), "PNG"), saved(plain.quantize(2), "PNG")]
        whole += [saved(plain.convert(mode), "JPEG", quality=100) for mode in ("RGB", "L")]
        whole += [saved(plain, "JPEG", progressive=True), saved(plain, "JPEG")[:-2] + bytes(9) + b"\xff\xd9"]
        whole += [with_thumbnail(plain)]
        for place, content in enumerate(whole):
            (tmp_path / f"{number}_{place}").write_bytes(content)
            assert read(str(tmp_path / f"{number}_{place}")).size == (41, 23), place
    (tmp_path / "passes.png").write_bytes(png(9, 9, bytes(42), interlaced=1))
    assert read(str(tmp_path / "passes.png")).size == (9, 9)


def test_what_is_transparent_is_white_and_sixteen_bits_are_eight(tmp_path: Path) -> None:
    hidden = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    grey = Image.new("LA", (4, 4), (10, 0))
    palette = Image.new("P", (4, 4), 0)
    palette.info["transparency"] = 0
    deep = Image.fromarray(np.full((4, 4), 65535 // 2, dtype=np.uint16))
    dark = Image.fromarray(np.full((4, 4), 200, dtype=np.uint16))
    bits = Image.new("1", (4, 4), 1)
    for number, (image, value) in enumerate(
        [(hidden, 255), (grey, 255), (palette, 255), (deep, 127), (dark, 0), (bits, 255)]
    ):
        path = tmp_path / f"{number}.png"
        image.save(path)
        assert abs(int(np.asarray(read(str(path))).mean()) - value) <= 1, number


def test_fractions_are_seen_and_pixels_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    for number, (value, seen) in enumerate([(0.5, 127), (1, 255), (40, 40), (65535 / 2, 127)]):
        Image.fromarray(np.full((4, 4), value, dtype=np.float32)).save(tmp_path / f"{number}.tif")
        assert abs(int(np.asarray(read(str(tmp_path / f"{number}.tif"))).mean()) - seen) <= 1, value
    Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(BadImage, match="broken image"):
        read(str(tmp_path / "nan.tif"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotation_is_that_of_exif_measured_and_decoded(orientation: int, tmp_path: Path) -> None:
    image = red(size=(40, 20))
    exif = image.getexif()
    exif[0x0112] = orientation
    for form in ("JPEG", "PNG"):
        path = tmp_path / f"a.{form}"
        image.save(path, form, exif=exif)
        expected = (20, 40) if orientation > 4 else (40, 20)
        assert read.size(str(path)) == read(str(path)).size == expected


def test_a_rotation_behind_the_pixels_is_heeded(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    body = exif.tobytes().removeprefix(b"Exif\x00\x00")
    whole = saved(red(), "PNG")
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    (tmp_path / "late.png").write_bytes(whole[:-12] + chunk + whole[-12:])
    assert read.size(str(tmp_path / "late.png")) == read(str(tmp_path / "late.png")).size == (20, 40)


def test_colours_of_another_profile_become_those_of_screens(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    red().save(tmp_path / "odd.png", icc_profile=b"no profile")
    red().save(tmp_path / "plain.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red().save(tmp_path / "wrong.png", icc_profile=lab)
    for name in ("odd", "plain", "wrong"):
        assert read(str(tmp_path / f"{name}.png")).size == (40, 20)
    assert read(str(tmp_path / "plain.png")).getpixel((0, 0)) == (200, 30, 20)


def test_rescaling_keeps_the_shape(tmp_path: Path) -> None:
    noise().resize((400, 100)).save(tmp_path / "a.png")
    small = ImageReader(10_000)
    assert small.size(str(tmp_path / "a.png")) == (400, 100)
    assert small(str(tmp_path / "a.png")).size == small.rescaled(400, 100) == (200, 50)
    assert small.rescaled(100, 100) == (100, 100) and small.rescaled(10**6, 1)[1] == 1


def test_frames_of_an_image_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a few megabytes may have a million of them."""
    frames = [Image.new("RGB", (8, 8), (0, 3 * shade, 0)) for shade in range(60)]
    frames[0].save(tmp_path / "long.gif", save_all=True, append_images=frames[1:])
    seek, seen = GifImageFile._seek, []
    monkeypatch.setattr(
        GifImageFile, "_seek", lambda self, frame, *rest: (seen.append(frame), seek(self, frame, *rest))
    )
    assert read(str(tmp_path / "long.gif")).getpixel((0, 0)) == (0, 0, 0)
    assert max(seen) <= 1


def test_profiles_that_cannot_be_read_are_said_once_for_all_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    another_command()
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 9, 9)).save(tmp_path / f"{number}.png", icc_profile=b"no profile")
        ImageReader()(str(tmp_path / f"{number}.png"))
    said = [record.message for record in caplog.records if "colour profiles" in record.message]
    assert len(said) == 1 and "0.png" in said[0]
