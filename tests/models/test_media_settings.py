"""Settings of media in `--model_kwargs` and the environment: which count, and which are refused by the name given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.tiny_multimodal import tiny_config

from swift.core.errors import SwiftError
from swift.models.families.internvl import InternVL
from swift.models.families.media_settings import given_settings, tried
from swift.models.families.mllama import Mllama
from swift.models.families.qwen_vl import Qwen2VL
from swift.params.parse import parse

FAMILIES = {"qwen2_vl": Qwen2VL, "internvl": InternVL}


def processor_in(folder: Path, kind: str) -> Any:
    (folder / "preprocessor_config.json").write_text(json.dumps(tiny_config(kind, 100, lambda token: 1)[1]))
    return FAMILIES[kind].load_processor(folder)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("qwen2_vl", {"max_pixls": 1}, "names max_pixls"),
        ("qwen2_vl", {"max_pixels": "abc"}, "max_pixels of --model_kwargs is 'abc'"),
        ("qwen2_vl", {"max_pixels": None}, "a whole number above 0"),
        ("qwen2_vl", {"max_pixels": True}, "a whole number above 0"),
        ("qwen2_vl", {"max_pixels": 100352.5}, "a whole number above 0"),
        ("qwen2_vl", {"fps": 0}, "a number above 0"),
        ("qwen2_vl", {"max_pixels": 784, "min_pixels": 1568}, "min_pixels is 1568, and max_pixels is 784"),
        ("qwen2_vl", {"fps_min_frames": 10, "fps_max_frames": 4}, "nothing is within both"),
        ("qwen2_vl", {"fps": 2, "nframes": 4}, "each says how many frames are shown"),
        ("qwen2_vl", {"do_resize": False}, "whatever do_resize says"),
        ("internvl", {"max_num": 0}, "max_num of --model_kwargs is 0"),
        ("internvl", {"max_pixels": 784}, "names max_pixels"),
        ("internvl", {"xyzzy": 1}, "leave xyzzy out"),
    ],
)
def test_what_is_no_setting_is_refused_by_its_name(kind: str, given: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(SwiftError) as error:
        given_settings(FAMILIES[kind], processor_in(tmp_path, kind), given)
    assert said in str(error.value)


def test_a_processor_that_does_not_resize_is_refused(tmp_path: Path) -> None:
    settings = {**tiny_config("qwen2_vl", 100, lambda token: 1)[1], "do_resize": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(SwiftError, match="do_resize is false"):
        FAMILIES["qwen2_vl"].load_processor(tmp_path)


def test_the_processor_of_another_model_is_refused(tmp_path: Path) -> None:
    processor_in(tmp_path, "qwen2_vl")
    with pytest.raises(SwiftError, match="has no max_image_tiles"):
        Mllama.load_processor(tmp_path)


def test_variables_are_named_by_theirs_and_a_flag_goes_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    processor = processor_in(tmp_path, "qwen2_vl")
    monkeypatch.setenv("MAX_PIXELS", "1568")
    monkeypatch.setenv("FPS", "0.5")
    assert given_settings(Qwen2VL, processor, {"max_pixels": 3136}) == {"max_pixels": 3136, "fps": 0.5}
    for text in ("0", "-1", "1e6", ""):
        monkeypatch.setenv("MAX_PIXELS", text)
        with pytest.raises(SwiftError, match="MAX_PIXELS is"):
            given_settings(Qwen2VL, processor, {})


@pytest.mark.parametrize("given", [{"size": "x"}, {"size": {"hight": 56}}, {"image_mean": "a"}, {"patch_size": "7"}])
def test_values_that_its_processor_cannot_work_with_are_found_at_the_start(given: dict, tmp_path: Path) -> None:
    processor_in(tmp_path, "qwen2_vl")
    with pytest.raises(SwiftError, match=f"cannot work with {next(iter(given))} as given"):
        tried(Qwen2VL, tmp_path, given)


@pytest.mark.parametrize("flag", ["max_pixels", "image_max_pixels", "nframes", "max_num"])
def test_flags_of_other_tools_say_where_the_setting_goes(flag: str) -> None:
    with pytest.raises(SwiftError) as error:
        parse(["sft", f"--{flag}", "9"])
    assert f"--model_kwargs '{{\"{flag.removeprefix('image_')}\": …}}'" in str(error.value)
