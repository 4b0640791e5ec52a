"""Media and objects of rows, as templates write them without a model: the form of the 2.5 release."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import swift
from swift.catalog import load_catalog
from swift.core.errors import SwiftError
from swift.prompts.grounding import BARE, OUTSIDE, REVERSED, TINY, UNNAMED, grounded, objects
from swift.prompts.media_links import out_of_text
from swift.prompts.template_media import one_a_turn
from swift.prompts.types import Conversation, Media, Message

CAT = {"caption": "cat", "bbox": [10, 20, 30, 40], "bbox_type": "real", "image": 0}
DOG = {"caption": "dog", "bbox": [[0, 0, 50, 100], [0.5, 0, 100, 25]], "bbox_type": "norm_1", "image": 0}
GRID = {"caption": "fox", "bbox": [1, 2, 3, 999], "bbox_type": "norm_1000", "image": 0}


@pytest.fixture
def picture(tmp_path: Path) -> str:
    """50 wide and 100 high, once its EXIF is heeded."""
    image = Image.new("RGB", (100, 50))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    return str(tmp_path / "a.png")


def text_of(template: str, tokenizer: Any, row: dict[str, Any]) -> str:
    """The prompt and answer as text, with ids below zero in brackets."""
    ids = swift.get_template(template, tokenizer, default_system="" if takes_system(template) else None).encode(row)
    assert ids is not None
    text, run = "", []
    for token in [*ids["input_ids"], None]:
        if token is not None and token >= 0:
            run.append(token)
            continue
        text += tokenizer.decode(run) + ("" if token is None else f"[{token}]")
        run = []
    return text


def takes_system(template: str) -> bool:
    entry = load_catalog().templates.get(template)
    return entry.system is not None or entry.system_in_prompt is not None


@pytest.mark.parametrize(
    ("template", "first", "second"),
    [
        ("llava1_5", "<image>\n", "<image>\n"),
        ("qwen2-vl", "<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|image_pad|><|vision_end|>"),
        ("qwen-vl", "Picture 1: <img>a.png</img>\n", "Picture 2: <img>b.png</img>\n"),
        ("internvl2", "<img>[-100]</img>\n", "<img>[-100]</img>\n"),
        ("llava-qwen", "[-200]\n", "[-200]\n"),
        ("molmo", "<|image|>", "<|image|>"),
        ("cogvlm2-video", "", None),
    ],
)
def test_tags_become_what_the_template_says(
    template: str, first: str, second: str | None, golden_tokenizer: Callable[[str], Any]
) -> None:
    tokenizer = golden_tokenizer("smollm2-plus")
    one = {"query": "Say <image>now", "response": "red", "images": ["a.png"]}
    assert f"Say {first}now" in text_of(template, tokenizer, one)
    assert f"{first}Say" in text_of(template, tokenizer, {**one, "query": "Say"})
    if second is None:
        with pytest.raises(SwiftError, match="the template takes 1"):
            text_of(template, tokenizer, {**one, "images": ["a.png", "b.png"]})
        return
    both = {"query": "<image>or<image>", "response": "red", "images": ["a.png", "b.png"]}
    assert f"{first}or{second}" in text_of(template, tokenizer, both)
    with pytest.raises(SwiftError, match="2 <image> and the row 1"):
        text_of(template, tokenizer, {**both, "images": ["a.png"]})


def test_a_tag_in_a_row_without_media_is_text_and_one_in_an_answer_is_not_trained(
    golden_tokenizer: Callable[[str], Any],
) -> None:
    tokenizer = golden_tokenizer("smollm2-plus")
    assert "Say <image>" in text_of("qwen2-vl", tokenizer, {"query": "Say <image>", "response": "x"})
    template = swift.get_template("llava1_5", tokenizer)
    row = {"query": "Draw", "response": "here <image>it is", "images": ["a.png"]}
    encoded = template.encode(row)
    assert encoded is not None
    trained = [label for label in encoded["labels"] if label != -100]
    assert tokenizer.decode(trained) == "here it is</s>"
    assert "here <image>\nit is" in tokenizer.decode(encoded["input_ids"])


def test_a_question_names_files_in_its_text_where_the_template_takes_media(
    golden_tokenizer: Callable[[str], Any],
) -> None:
    tokenizer = golden_tokenizer("smollm2-plus")
    named = {"query": "<img>b.png</img>or<img>c</img>?", "response": "<img>x</img>", "history": [["<img>a</img>", "y"]]}
    plain = {"query": "<image>or<image>?", "response": "<img>x</img>", "history": [["<image>", "y"]]}
    assert text_of("qwen-vl", tokenizer, named) == text_of(
        "qwen-vl", tokenizer, {**plain, "images": ["a", "b.png", "c"]}
    )
    assert "<img>b.png</img>or" in text_of("qwen", tokenizer, named)
    with pytest.raises(SwiftError, match="images in its text and in `images`"):
        text_of("qwen-vl", tokenizer, {**named, "images": ["a"]})


def test_files_are_found_in_a_text_in_one_pass() -> None:
    """A request may hold 64 MB of anything, and is looked at while others are answered."""
    for text in (
        "<img>" * 10**6,
        "</img>" * 10**6,
        "<img>a</img>\n" * 10**5,
        "<img>" * 10**5 + "\n" + "</img>" * 10**5,
    ):
        message = Message("user", text)
        (found,), files = out_of_text([message])
        assert found.content.count("<image>") == len(files.get("images", [])) == (10**5 if text[5] == "a" else 0)
    (found,), files = out_of_text([Message("user", "<video>, <video>a.mp4</video> <img></img><img>a\nb</img>")])
    assert (found.content, files) == ("<video>, <video> <img></img><img>a\nb</img>", {"videos": ["a.mp4"]})


@pytest.mark.parametrize("template", ["yi-vl", "mplug-owl2"])
def test_one_medium_a_turn(template: str, golden_tokenizer: Callable[[str], Any]) -> None:
    tokenizer = golden_tokenizer("smollm2-plus")
    row = {"history": [["one", "1"], ["two", "2"]], "query": "three", "response": "3", "images": ["a", None, "c"]}
    text = text_of(template, tokenizer, row)
    mark = "[-200]\n" if template == "yi-vl" else "[-200]"
    assert f"{mark}one" in text and f"{mark}three" in text and text.count("[-200]") == 2
    with pytest.raises(SwiftError, match="3 turns, 1 media"):
        text_of(template, tokenizer, {**row, "images": ["a"]})


@pytest.mark.parametrize(
    ("template", "cat", "dog"),
    [
        ("llava1_5", "cat[(199,199),(599,399)]", "dog[(0,0),(499,999)],[(4,0),(999,249)]"),
        (
            "qwen2-vl",
            "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(199,199),(599,399)<|box_end|>",
            "<|object_ref_start|>dog<|object_ref_end|>"
            "<|box_start|>(0,0),(499,999)<|box_end|><|box_start|>(4,0),(999,249)<|box_end|>",
        ),
        (
            "internvl2",
            "<ref>cat</ref><box> [[199, 199, 599, 399]] </box>",
            "<ref>dog</ref><box> [[0, 0, 499, 999],[4, 0, 999, 249]] </box>",
        ),
        (
            "qwen-vl",
            "<ref>cat</ref><box>(199,199),(599,399)</box>",
            "<ref>dog</ref><box>(0,0),(499,999)</box><box>(4,0),(999,249)</box>",
        ),
    ],
)
def test_objects_and_boxes_in_thousandths_of_the_image(
    template: str, cat: str, dog: str, picture: str, golden_tokenizer: Callable[[str], Any]
) -> None:
    tokenizer = golden_tokenizer("smollm2-plus")
    within = {**DOG, "bbox": [[coordinate / 100 for coordinate in box] for box in DOG["bbox"]]}
    row = {
        "query": "<image><ref-object><bbox> and <ref-object><bbox> and <ref-object>",
        "response": "<bbox>",
        "images": [picture],
        "objects": [CAT, within, GRID],
    }
    text = text_of(template, tokenizer, row)
    assert f"{cat} and {dog} and " in text
    assert "fox" in text and "1" in text.rpartition("999")[0]


def test_boxes_without_an_image_stay_and_pairs_and_json_are_read(golden_tokenizer: Callable[[str], Any]) -> None:
    tokenizer = golden_tokenizer("smollm2-plus")
    row = {"query": "<ref-object>?", "response": "<bbox>", "objects": '[["cat", [1, 2, 3.5, 4]]]'}
    text = text_of("llava1_5", tokenizer, row)
    assert "cat?" in text and "[(1,2),(3.5,4)]" in text


def test_objects_that_cannot_be_used_are_named(picture: str, golden_tokenizer: Callable[[str], Any]) -> None:
    tokenizer = golden_tokenizer("smollm2-plus")
    row = {"query": "<ref-object>", "response": "<bbox>", "images": [picture]}
    bad: list[tuple[Any, str]] = [
        ([{**CAT, "bbox": [1, 2, 3]}], "not four numbers"),
        ([{**CAT, "bbox": None}], "not four numbers"),
        ([{**CAT, "bbox": ["a", 1, 2, 3]}], "not four numbers"),
        ([{**CAT, "bbox": [float("nan"), 1, 2, 3]}], "not four numbers"),
        ([{**CAT, "image": 1}], "the row has 1 images"),
        ([{**CAT, "bbox_type": "pixels"}], "not real, norm_1 or norm_1000"),
        ([{**CAT, "caption": None}], "caption is no text"),
        ([{**CAT, "caption": "<image>"}], "holds a tag"),
        ([5], "an object with a bbox"),
        ({"bbox": 1}, "a list"),
    ]
    for given, reason in bad:
        with pytest.raises(SwiftError, match=reason):
            text_of("qwen2-vl", tokenizer, {**row, "objects": given})
    with pytest.raises(SwiftError, match="more <bbox>"):
        text_of("qwen2-vl", tokenizer, {**row, "query": "<bbox>", "objects": [CAT]})


def test_what_is_odd_about_objects_is_said() -> None:
    form, said = load_catalog().templates.get("qwen2-vl").media, []
    asked = (Message("user", "<ref-object>"), Message("assistant", "<bbox>"))
    for given in (
        (),
        ({**CAT, "bbox": [10, 20, 51, 40]},),
        ({**GRID, "bbox": [0, 0, 1001, 9]},),
        ({**CAT, "image": None},),
        (CAT, DOG),
        ({**CAT, "bbox": [30, 20, 10, 40]},),
        ({**GRID, "bbox": [30, 20, 40, 10]},),
        ({**CAT, "bbox": [30, 20, 10, 40], "bbox_type": None},),
        ({**CAT, "bbox": [0.25, 0.2, 0.5, 1]},),
        ({**CAT, "bbox": [0, 0, 1, 1]},),
        ({**CAT, "bbox": [0.25, 0.2, 0.5, 1], "bbox_type": "norm_1"},),
    ):
        conversation = Conversation(asked, media=Media(images=("a.png",), objects=given))
        said.append(grounded(conversation, form, lambda _: (50, 100))[1])
    assert said == [(BARE,), (OUTSIDE,), (OUTSIDE,), (), (UNNAMED,), *[(REVERSED,)] * 3, (TINY,), (), ()]
    assert grounded(Conversation((Message("user", "boxes"),)), form, lambda _: (1, 1))[1] == ()


def test_a_model_shows_one_medium_a_turn_where_its_template_does() -> None:
    form = load_catalog().templates.get("llava-next-video-yi").media
    turns = [Message(role, role) for role in ("user", "assistant") * 2]
    two = Conversation(tuple(turns), media=Media(images=("a", "b")))
    spread = one_a_turn(two, form)
    assert [message.content for message in spread.messages] == ["<image>user", "assistant"] * 2
    assert one_a_turn(spread, form) == spread
    assert one_a_turn(two, load_catalog().templates.get("llava-next-video").media) == two
    with pytest.raises(SwiftError, match="2 turns, 1 media"):
        one_a_turn(Conversation(tuple(turns), media=Media(videos=("a",))), form)
    alone = Conversation(tuple(turns[:2]), media=Media(images=("a", "b")))
    assert one_a_turn(alone, form) == alone


def test_every_template_writes_only_slots_that_it_knows() -> None:
    for name in load_catalog().templates:
        media = load_catalog().templates.get(name).media
        for text in (media.image, media.video, media.audio):
            left = (text or "").replace("{{number}}", "").replace("{{path}}", "")
            assert "{{" not in left.replace("{{id:", ""), name
        assert "{{caption}}" in media.caption and "{{x1}}" in media.box and "{{boxes}}" in media.boxes, name


def test_objects_in_columns_are_those_in_rows() -> None:
    boxes = [[10, 20, 30, 40], [1, 2, 3, 4]]
    rows = [{"caption": "cat", "bbox": boxes[0], "bbox_type": "real", "image": 0}]
    rows.append({"bbox": boxes[1], "bbox_type": "real", "image": 1})
    columns = {"ref": ["cat"], "bbox": boxes, "image_id": [0, 1]}
    assert list(objects(columns)) == list(objects(json.dumps(columns))) == rows
    assert [each["bbox_type"] for each in objects({"bbox": boxes, "bbox_type": "norm1"})] == ["norm_1", "norm_1"]
    assert objects({"ref": [], "bbox": []}) == objects({}) == ()
    assert objects(rows[0]) == (rows[0],)


def test_boxes_count_pixels_of_what_a_model_is_shown_where_it_was_taught_so() -> None:
    """Of Qwen2.5-VL, which is shown a picture of 50 x 100 as one of 56 x 112."""
    form = load_catalog().templates.get("qwen2-vl").media
    whole = {"caption": "all", "bbox": [0, 0, 1000, 500], "bbox_type": "norm_1000", "image": 0}
    named = Message("user", "<ref-object><bbox>" * 3), Message("assistant", "<bbox>")
    plain = {"caption": "as it is", "bbox": [1, 2, 3, 4], "bbox_type": None, "image": 0}
    conversation = Conversation(named, media=Media(images=("a.png",), objects=(CAT, DOG, whole, plain)))
    found, _ = grounded(conversation, form, lambda _: (50, 100), lambda _: (56, 112))
    asked, answered = found.messages
    assert "(11,22),(34,45)" in asked.content  # 10 / 50 * 56 = 11.2 …
    assert "(0,0),(56,56)" in asked.content
    assert answered.content == "<|box_start|>(1,2),(3,4)<|box_end|>"
