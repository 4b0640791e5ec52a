"""Videos of every container and kind of damage: the frames that people see, or a name for what is wrong."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.fixtures.videos import picture, write_video

from swift.core.log import another_command
from swift.data.image_files import ImageReader
from swift.data.video_files import VideoReader
from swift.models.families.sampling import Sampling
from swift.prompts.images import BadMedium, BadVideo, Clip

av = pytest.importorskip("av")
read = VideoReader(ImageReader())
CONTAINERS = {"a.mp4": "libx264", "b.webm": "libvpx-vp9", "c.mkv": "libx264", "d.avi": "mpeg4", "e.mov": "libx264"}


@pytest.mark.parametrize("name", CONTAINERS)
def test_frames_are_counted_without_decoding_and_decoded_by_number(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, 11, 5, (64, 48), codec=CONTAINERS[name])
    link = "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
    for source in (str(path), f"file://{path}", link):
        assert read.clip(source) == Clip(64, 48, 11, 5.0)
        frames = read.frames(source, [0, 4, 10])
        for number, frame in zip((0, 4, 10), frames, strict=True):
            expected = np.asarray(picture(number, 11, (64, 48)), dtype=int)
            assert np.abs(np.asarray(frame, dtype=int) - expected).mean() < 12
        assert frames == read.frames(source, [0, 4, 10])


def test_a_list_of_frames_is_a_video(tmp_path: Path) -> None:
    paths = []
    for number in range(3):
        paths.append(str(tmp_path / f"{number}.png"))
        picture(number, 3, (30, 20)).save(paths[-1])
    clip = read.clip(tuple(paths))
    assert (clip.frames, clip.width, clip.height, clip.listed) == (3, 30, 20, True)
    assert [frame.size for frame in read.frames(tuple(paths), [0, 2])] == [(30, 20)] * 2


SOUND = b"RIFF\x44\x03\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\x20\x03\0\0" + bytes(800)


def test_damaged_videos_are_named(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", 30, 10, (64, 48)).read_bytes()
    bad = {
        "empty.mp4": b"",
        "text.mp4": b"no video at all",
        "page.mp4": b"<!doctype html><html>404</html>",
        "cut.mp4": whole[: len(whole) // 2],
        "head.mp4": whole[:40],
        "zeros.mp4": bytes(5000),
        "sound.mp4": SOUND,
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadMedium) as fault:
            clip = read.clip(str(tmp_path / name))
            read.frames(str(tmp_path / name), range(clip.frames))
        assert fault.value.key == "videos" and len(str(fault.value)) < 400, name
    for name, codec in (("a.mkv", "libx264"), ("b.webm", "libvpx-vp9"), ("c.flv", "flv1")):
        path = write_video(tmp_path / name, 30, 10, (64, 48), codec=codec)
        assert read.clip(str(path)).frames == 30
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        with pytest.raises(BadMedium, match="bytes early"):
            read.clip(str(path))
    # A kind of pictures that nobody knows: `avc1`, by which the decoder is found, is another name.
    (tmp_path / "unknown.mp4").write_bytes(whole.replace(b"avc1", b"zzzz"))
    with pytest.raises(BadMedium, match="no kind of pictures that is known"):
        read.clip(str(tmp_path / "unknown.mp4"))
    for source in (str(tmp_path), str(tmp_path / "gone.mp4"), "", "a\0b", "data:", "data:video/mp4;base64,%%", ()):
        with pytest.raises(BadMedium):
            read.clip(source)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(BadMedium):
        read.clip((str(tmp_path / "broken.png"),))


CUT = {
    "a.ts": "libx264",
    "a.mpg": "mpeg2video",
    "a.avi": "mpeg4",
    "a.flv": "flv1",
    "a.mkv": "libx264",
    "a.webm": "libvpx-vp9",
    "a.asf": "mpeg4",
    "a.ivf": "libvpx",
    "a.ogg": "libvpx",
    "a.mxf": "mpeg2video",
    "a.gif": "gif",
    "a.png": "png",
}


@pytest.mark.parametrize("name", CUT)
def test_videos_that_were_cut_off_are_no_shorter_ones(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if path.suffix in (".gif", ".png"):
        first, *others = (picture(number, 30, (64, 48)) for number in range(30))
        first.save(path, save_all=True, append_images=others, duration=40)
    else:
        write_video(path, 30, 25, (64, 48), codec=CUT[name])
    content = path.read_bytes()
    assert read.clip(str(path)).frames == len(read.frames(str(path), range(30))) == 30
    content = content.rstrip(b"\xff") if path.suffix == ".mpg" else content  # what fills its last packet up
    for part in (20, 50, 80, 94):
        path.write_bytes(content[: len(content) * part // 100 - 3])
        link = "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
        for source in (str(path), link):
            with pytest.raises(BadMedium) as fault:
                read.clip(source)
            assert fault.value.key == "videos" and len(str(fault.value)) < 400


def test_whole_packets_that_end_before_the_head_says(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.flv", 30, 10, (64, 48), codec="flv1")
    content, place = path.read_bytes(), 13
    while place < len(content) * 2 // 3:
        place += 11 + int.from_bytes(content[place + 1 : place + 4]) + 4
    path.write_bytes(content[:place])
    with pytest.raises(BadVideo, match=r"and its head says 3\.0 s"):
        read.clip(str(path))


def test_a_video_that_was_written_while_it_was_shown_says_no_length(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    write_video(path, 30, 25, (64, 48), options={"live": "1"})
    assert read.clip(str(path)).frames == 30
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadVideo, match="bytes early"):
        read.clip(str(path))


def with_cover(path: Path, shown: str | None) -> Path:
    """A video, or a sound where nothing is `shown`, whose first pictures are its cover."""
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        other: Any = container.add_stream(shown or "aac", rate=8 if shown else 16000)
        if shown:
            other.width, other.height, other.pix_fmt = 32, 32, "yuv420p"
            frames = [av.VideoFrame.from_image(picture(number, 16, (32, 32))) for number in range(16)]
        else:
            frames = [av.AudioFrame.from_ndarray(np.zeros((1, 16000), dtype=np.float32), "fltp", "mono")]
            frames[0].sample_rate = 16000
        red = av.VideoFrame.from_image(Image.new("RGB", (64, 64), "red")).reformat(format="yuvj420p")
        for stream, frame in ((cover, red), (cover, None), *((other, frame) for frame in [*frames, None])):
            for packet in stream.encode(frame):
                container.mux(packet)
    return path


def test_frames_that_the_decoder_guesses_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    another_command()
    path = write_video(tmp_path / "a.mp4", 40, 10, (160, 120))
    whole, frames = path.read_bytes(), read.frames(str(path), range(40))
    assert not caplog.records
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for number, (start, size) in enumerate((packets[3], packets[4], packets[0])):
        if number == 2:  # the frame that all others go by
            another_command()
        path, place = tmp_path / f"{number}.mp4", start + size - 40
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        assert read.frames(str(path), range(40)) != frames
    said = [record.message for record in caplog.records]
    assert ["damaged frames" in one for one in said] == [True] * 2 and "0.mp4" in said[0] and "2.mp4" in said[1]


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv"):
        clip = read.clip(str(with_cover(tmp_path / name, "libx264")))
        assert (clip.width, clip.frames) == (32, 16), name
    with pytest.raises(BadVideo, match="no pictures"):
        read.clip(str(with_cover(tmp_path / "sound.mp4", None)))


def test_bare_streams_of_pictures_are_named(tmp_path: Path) -> None:
    """They do not say when a frame is shown, nor where they end."""
    write_video(tmp_path / "a.h264")
    with pytest.raises(BadVideo, match="such as MP4"):
        read.clip(str(tmp_path / "a.h264"))


def test_fewer_frames_than_the_head_says_are_named_when_they_are_shown(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 60, 10, (64, 48), head_first=True)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    clip = read.clip(str(path))
    with pytest.raises(BadMedium):
        read.frames(str(path), [0, clip.frames - 1])


def test_frames_that_are_stated_and_were_cut_off_are_the_last_one(tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "a.mp4", 40, 10, (64, 48)))
    first, last, behind = read.frames(path, [0, 39, 40])
    assert behind.tobytes() == last.tobytes() != first.tobytes()
    with pytest.raises(BadMedium, match="frame 41 cannot be decoded"):
        read.frames(path, [0, 60])


def test_a_video_has_as_many_frames_as_it_can_give() -> None:
    clip, fixed = Clip(64, 48, 9, 3.0), Sampling(num_frames=16)
    assert fixed.by_rate(clip, 2) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert Sampling().by_rate(clip, 2) == [0, 2, 3, 5, 6, 8]
    assert Sampling(num_frames=4).by_rate(clip, 2) == [0, 3, 5, 8]
    with pytest.raises(ValueError, match="at least 2"):
        fixed.by_rate(Clip(64, 48, 1, 3.0), 2)


def test_a_video_that_is_turned_is_seen_upright(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 4, 2, (64, 32))
    content = path.read_bytes()
    place = content.index(b"tkhd") + 4 + 40
    turned = b"".join(number.to_bytes(4, "big", signed=True) for number in (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30))
    path.write_bytes(content[:place] + turned + content[place + 36 :])
    clip = read.clip(str(path))
    (frame,) = read.frames(str(path), [2])
    assert (clip.width, clip.height) == frame.size == (32, 64)
    straight = picture(2, 4, (64, 32)).transpose(Image.Transpose.ROTATE_270)
    assert np.abs(np.asarray(frame, dtype=int) - np.asarray(straight, dtype=int)).mean() < 12


def test_what_names_other_files_or_ports_is_no_video(tmp_path: Path) -> None:
    """FFmpeg would open them: playlists, lists of parts, descriptions of sessions (for which it waits at a port)."""
    write_video(tmp_path / "inner.mp4")
    address = tmp_path / "inner.mp4"
    for number, text in enumerate(
        (
            "ffconcat version 1.0\nfile inner.mp4\n",
            f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{address}\n#EXT-X-ENDLIST\n",
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
            "m=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        )
    ):
        path = tmp_path / f"{number}.mp4"
        path.write_text(text)
        link = "data:video/mp4;base64," + base64.b64encode(text.encode()).decode()
        start = time.monotonic()
        for source in (str(path), link):
            with pytest.raises(BadVideo):
                read.clip(source)
        assert time.monotonic() - start < 5
    (tmp_path / "a:b.mp4").write_bytes(address.read_bytes())
    assert read.clip(str(tmp_path / "a:b.mp4")) == read.clip(str(address))
