"""Sounds of every format and kind of damage: what people hear, or a name for what is wrong."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from tests.fixtures.sounds import write_sound

from swift.data.mp3_frames import frames_of
from swift.data.sound_files import SoundReader
from swift.prompts.images import BadAudio

soundfile = pytest.importorskip("soundfile")
read = SoundReader()


def test_sounds_are_counted_by_their_heads_and_heard_as_one_channel_at_the_rate(tmp_path: Path) -> None:
    expected = read(str(write_sound(tmp_path / "plain.wav", 0.5)), 16000)
    assert expected.shape == (8000,) and expected.dtype == np.float32
    for name, rate, channels in (
        ("same.flac", 16000, 1),
        ("fast.wav", 48000, 1),
        ("odd.wav", 44100, 2),
        ("slow.wav", 8000, 1),
        ("small.mp3", 24000, 1),
        ("vorbis.ogg", 16000, 1),
        ("many.wav", 16000, 6),
    ):
        path = write_sound(tmp_path / name, 0.5, rate, channels)
        link = "data:audio/any;base64," + base64.b64encode(path.read_bytes()).decode()
        for source in (str(path), f"file://{path}", link):
            heard = read(source, 16000)
            assert len(heard) == read.samples(source, 16000) == 8000, name
            if channels == 1:
                assert np.abs(heard[200:-200] - expected[200:-200]).mean() < 0.05, name


def test_damaged_sounds_are_named(tmp_path: Path) -> None:
    whole = write_sound(tmp_path / "whole.flac", 2.0).read_bytes()
    numbers = np.full(1000, np.nan, dtype=np.float32)
    soundfile.write(tmp_path / "nan.wav", numbers, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "none.wav", numbers[:0], 16000)
    bad = {
        "empty.wav": b"",
        "text.wav": b"no sound at all",
        "page.mp3": b"<!doctype html><html>404</html>",
        "cut.flac": whole[: len(whole) // 2],
        "cut.wav": write_sound(tmp_path / "whole.wav", 2.0).read_bytes()[:-100],
        "head.flac": whole[:30],
        "zeros.wav": bytes(5000),
        "nan.wav": (tmp_path / "nan.wav").read_bytes(),
        "none.wav": (tmp_path / "none.wav").read_bytes(),
    }
    for kind in ("AIFF", "AU", "RF64", "W64", "CAF", "NIST"):
        soundfile.write(tmp_path / "whole", np.zeros(1000, dtype=np.float32), 16000, format=kind)
        assert read.samples(str(tmp_path / "whole"), 16000) == 1000
        bad[f"cut.{kind.lower()}"] = (tmp_path / "whole").read_bytes()[:-100]
    soundfile.write(tmp_path / "whole", np.zeros(1000, dtype=np.float32), 16000, format="IRCAM")
    bad["any.sf"] = (tmp_path / "whole").read_bytes()  # says nothing about its length
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        link = "data:audio/wav;base64," + base64.b64encode(content).decode()
        for source in (str(tmp_path / name), link):
            with pytest.raises(BadAudio) as fault:
                read(source, 16000)
            assert len(str(fault.value)) < 400, name
    for source in (str(tmp_path), str(tmp_path / "gone.wav"), "", "a\0b", "data:", "data:audio/wav;base64,%%"):
        with pytest.raises(BadAudio):
            read.samples(source, 16000)


def test_a_head_that_does_not_say_how_long_a_sound_is_costs_nothing(tmp_path: Path) -> None:
    """ffmpeg writes such heads into pipes; other programs count eight bytes too many."""
    whole = write_sound(tmp_path / "whole.wav", 0.5).read_bytes()
    for number, stated in enumerate((2**32 - 1, 0, len(whole))):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(whole[:4] + stated.to_bytes(4, "little") + whole[8:])
        assert read.samples(str(path), 16000) == 8000


def cuts(content: bytes) -> list[bytes]:
    return [content[: len(content) * part // 100 - 7] for part in (30, 50, 75, 90, 99)]


def test_pages_of_ogg_end_with_one_that_says_so(tmp_path: Path) -> None:
    for subtype in ("VORBIS", "OPUS"):
        path = tmp_path / "a.ogg"
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 64000), 16000, subtype=subtype, format="OGG")
        content = path.read_bytes()
        assert len(read(str(path), 16000)) == 64000
        path.write_bytes(content + b"\0" * 500)  # what a block of a disk was filled up with
        assert read.samples(str(path), 16000) == 64000
        for cut in (*cuts(content), content[: content.rfind(b"OggS")]):
            path.write_bytes(cut)
            with pytest.raises(BadAudio, match="last"):
                read.samples(str(path), 16000)


def mp3(tmp_path: Path, mode: str, rate: int = 16000, channels: int = 1) -> tuple[bytes, bytes]:
    """Four seconds that begin quietly: as they are written, and without the frame in front that counts the others."""
    loud = np.random.default_rng(0).normal(0, 0.2, (4 * rate, channels))
    loud[: 2 * rate] *= 0.001
    soundfile.write(tmp_path / "whole.mp3", loud, rate, bitrate_mode=mode, compression_level=0.5)
    content = (tmp_path / "whole.mp3").read_bytes()
    frames = frames_of(content)
    assert frames is not None and frames.count == frames.stated
    place = content.index(content[:2], 4)
    while frames_of(content[place:]) is None:
        place = content.index(content[:2], place + 1)
    return content, content[place:]


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 2), (44100, 1), (48000, 2)])
def test_frames_of_mp3_are_counted_where_nothing_says_how_many_there_are(
    mode: str, rate: int, channels: int, tmp_path: Path
) -> None:
    """By the size of the first ones the others were taken for fewer, or for more than there are."""
    whole, bare = mp3(tmp_path, mode, rate, channels)
    expected, path = read(str(tmp_path / "whole.mp3"), rate), tmp_path / "a.mp3"
    tag = b"ID3\x04\0\0\0\0\x01\x00" + bytes(128)
    for content, times in ((bare, 1), (tag + bare + b"TAG" + bytes(125), 1), (whole + tag + whole, 2)):
        path.write_bytes(content)
        heard = read(str(path), rate)
        assert len(heard) == read.samples(str(path), rate)
        assert abs(len(heard) - times * len(expected)) < 2500 * times
        loud = len(heard) - len(expected) // 4
        assert np.std(heard[loud:]) > 0.05, "its end is there"


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_mp3_that_is_cut_off_is_named(mode: str, tmp_path: Path) -> None:
    whole, bare = mp3(tmp_path, mode)
    path = tmp_path / "a.mp3"
    for content, reason in ((whole, "of 1.. frames are in it"), (bare, "its last frame ends .* early")):
        for cut in cuts(content):
            path.write_bytes(cut)
            with pytest.raises(BadAudio, match=reason):
                read.samples(str(path), 16000)


def test_flac_out_of_a_pipe_is_named_as_such(tmp_path: Path) -> None:
    content = bytearray(write_sound(tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(content)
    with pytest.raises(BadAudio, match="written into a pipe"):
        read.samples(str(tmp_path / "a.flac"), 16000)
