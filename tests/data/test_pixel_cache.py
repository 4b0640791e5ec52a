"""The pixel cache: what comes out of it is what decoding gives, and nothing is decoded twice."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.fixtures.videos import write_video

from swift.data.bounded_store import COUNTED, SUFFIX, BoundedStore, clear_old
from swift.data.image_files import ImageReader
from swift.data.pixel_cache import PixelCache
from swift.data.video_files import VideoReader
from swift.prompts.images import BadImage

BICUBIC = int(Image.Resampling.BICUBIC)


def noise(path: Path, seed: int = 0) -> str:
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(path)
    return str(path)


def unreadable(path: str) -> None:
    """The file with other bytes, and nothing to see of it from outside."""
    state = os.stat(path)
    Path(path).write_bytes(bytes(state.st_size))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*/*{SUFFIX}"))


def test_pixels_are_those_of_decoding_and_nothing_is_decoded_twice(tmp_path: Path) -> None:
    reader, plain = ImageReader(2000, PixelCache(BoundedStore(tmp_path / "pixels"))), ImageReader(2000)
    one, copy = noise(tmp_path / "one.png"), tmp_path / "copy.png"
    for size in (None, (28, 56)):
        expected = plain.prepared(one, size, BICUBIC)
        first = reader.prepared(one, size, BICUBIC)
        assert first.tobytes() == expected.tobytes() and first.size == expected.size and first.mode == "RGB"
    copy.write_bytes(Path(one).read_bytes())
    inodes = {path.stat().st_ino for path in entries(tmp_path / "pixels")}
    assert reader.prepared(str(copy), None, BICUBIC).tobytes() == plain.prepared(one, None, BICUBIC).tobytes()
    assert {path.stat().st_ino for path in entries(tmp_path / "pixels")} == inodes  # the same bytes are kept once
    expected = plain.prepared(one, None, BICUBIC)
    unreadable(one)
    fresh = ImageReader(2000, PixelCache(BoundedStore(tmp_path / "pixels")))
    assert fresh.prepared(one, None, BICUBIC).tobytes() == expected.tobytes()
    time.sleep(0.01)
    noise(tmp_path / "one.png", 1)
    changed = plain.prepared(one, None, BICUBIC)
    assert fresh.prepared(one, None, BICUBIC).tobytes() == changed.tobytes() != expected.tobytes()


def test_damaged_entries_are_made_again_and_damaged_images_are_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reader = ImageReader(cache=PixelCache(BoundedStore(tmp_path / "pixels")))
    one = noise(tmp_path / "one.png")
    expected = reader.prepared(one, None, BICUBIC).tobytes()
    for damage in (b"", b"swift-entry-1", None):
        for path in entries(tmp_path / "pixels"):
            content = path.read_bytes()
            path.write_bytes(content[:-1] + b"\0" if damage is None else damage)
        assert reader.prepared(one, None, BICUBIC).tobytes() == expected
        assert "is damaged and is made again" in caplog.text
        caplog.clear()
    (tmp_path / "text.png").write_text("no image")
    count = len(entries(tmp_path / "pixels"))
    with pytest.raises(BadImage):
        reader.prepared(str(tmp_path / "text.png"), None, BICUBIC)
    assert len(entries(tmp_path / "pixels")) == count


def test_frames_of_a_video_are_kept_together(tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = str(write_video(tmp_path / "a.mp4"))
    cached, plain = (
        VideoReader(ImageReader(cache=PixelCache(BoundedStore(tmp_path / "pixels")))),
        VideoReader(ImageReader()),
    )
    expected = [frame.tobytes() for frame in plain.frames(path, [0, 5, 15], (28, 28))]
    for _ in range(2):
        assert [frame.tobytes() for frame in cached.frames(path, [0, 5, 15], (28, 28))] == expected
        unreadable(path)


def test_the_folder_is_bounded_and_a_full_disk_costs_nothing_but_time(tmp_path: Path) -> None:
    folder = tmp_path / "pixels"
    reader = ImageReader(cache=PixelCache(BoundedStore(folder, limit=200_000)))
    paths = [noise(tmp_path / f"{number}.png", number) for number in range(COUNTED + 10)]
    for path in paths:
        reader.prepared(path, None, BICUBIC)
    kept = {path.stat().st_ino for path in entries(folder)}
    assert len(kept) == COUNTED  # the look at the folder behind them found it full
    assert reader.prepared(paths[-1], None, BICUBIC).size == (64, 48)
    long_ago = time.time() - 3 * 24 * 3600
    for path in entries(folder)[:40]:
        os.utime(path, (long_ago, long_ago))
    assert clear_old(folder, limit=600_000) and clear_old(folder, limit=500_000)
    assert len({path.stat().st_ino for path in entries(folder)}) < COUNTED
    (tmp_path / "file").write_text("in the way")
    blocked = ImageReader(cache=PixelCache(BoundedStore(tmp_path / "file")))
    assert blocked.prepared(paths[0], None, BICUBIC).size == (64, 48)
