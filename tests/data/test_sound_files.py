"""Sounds of every format and kind of damage: what people hear, or a name for what is wrong."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from tests.fixtures.sounds import write_sound

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
    for kind in ("AIFF", "AU", "RF64", "W64"):
        soundfile.write(tmp_path / "whole", np.zeros(1000, dtype=np.float32), 16000, format=kind)
        assert read.samples(str(tmp_path / "whole"), 16000) == 1000
        bad[f"cut.{kind.lower()}"] = (tmp_path / "whole").read_bytes()[:-100]
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
