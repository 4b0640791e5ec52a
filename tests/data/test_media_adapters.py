"""Registered data sets with pictures, videos or sounds: a record of each becomes its row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from swift.catalog import load_catalog
from swift.data.adapters import converter
from swift.data.formats import convert
from swift.data.media_adapters import DESCRIBE, DESCRIBE_ZH, LOCATE, NAME_BOX
from swift.data.media_archives import placed
from swift.data.source import SourceFile
from swift.prompts.bad_row import BadRow
from swift.prompts.types import Conversation, Preference

CATALOG = load_catalog()
SHARED = "hjh0119/sharegpt4v-images"
HUMAN = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]
ROLES = [{"role": "user", "content": "<image>\nq"}, {"role": "assistant", "content": "a"}]
CELL = "inside:1.jpg"  # what a picture in a Parquet file has become when the row is converted
LINK = "https://example.org/1.jpg"


def converted(name: str, record: dict[str, Any]) -> Any:
    """The row with media left out: each file stays an address."""
    entry = CATALOG.datasets.get(name)
    file = SourceFile(Path("sub/x"), name, entry.converter, dict(entry.columns), dict(entry.options), home=("x", "y"))
    return convert(placed(converter(file)(record), file), media_there=False).row


Expected = tuple[dict[str, Any], str | tuple[str, ...], str, str]
RECORDS: dict[str, Expected] = {
    "sharegpt-4o-image": (
        {"id": "1", "image": "x/1.jpg", "conversations": HUMAN},
        "<image>\nq", "a", "images.zip/mnt/petrelfs/wangwenhai/workspace_cef/4o/image/x/1.jpg",
    ),
    "sa1b-paired-caption": ({"opensource_url": LINK, "global_caption": "a"}, DESCRIBE_ZH, "a", LINK),
    "sa1b-dense-caption": (
        {"url": LINK, "cap_seg": "{'global_caption': 'a', 'other': 1}"}, DESCRIBE_ZH, "a", LINK,
    ),
    "mantis-instruct": (
        {"id": "1", "images": [{"bytes": None, "path": "1.jpg"}], "conversation": ROLES},
        "<image>\nq", "a", "sub/train_images.zip/1.jpg",
    ),
    "llava-data-instruct": (
        {"images": [{"bytes": None, "path": "vg/VG_100K_2/1.jpg"}], "conversation": ROLES},
        "<image>\nq", "a", f"{SHARED}/VG_100K_2.zip/VG_100K_2/1.jpg",
    ),
    "coco-en": ({"image": CELL, "caption": "a&&b&&c"}, "please describe the image.", "a", CELL),
    "coco-en-2": ({"image": CELL, "caption": "a"}, "please describe the image.", "a", CELL),
    "pixelprose": (
        {"uid": "1", "url": LINK, "vlm_caption": "This image displays: a"}, DESCRIBE, "a", LINK,
    ),
    "aishell1-zh": ({"Audio:FILE": "wav/1.wav", "Text:LABEL": "而 对 楼市"}, "语音转文本", "而对楼市", "wav/1.wav"),
    "video-chatgpt": (
        {"video_name": "v_1", "question": "None", "question_1": "q", "question_2": "p", "answer": "a"},
        "q", "a", "videos.zip/Test_Videos/v_1.mp4",
    ),
    "egoschema": (
        {"question_idx": "1", "question": "q", "video_idx": "v", "option": ["A. x", "B. y", "C. z", "D. u", "E. v"],
         "answer": "3"},
        "q\nA. x\nB. y\nC. z\nD. u\nE. v", "D", "videos_chunked_01.zip/videos/v.mp4",
    ),
    "llava-video-178k": (
        {"id": "1", "video": "1.mp4", "conversations": HUMAN}, "<video>\nq", "a", "sub/sub_videos_1.tar.gz/1.mp4",
    ),
    "moviechat-1k-test": (
        {"info": {"video_path": "1.mp4", "fps": 24}, "global": [{"question": "q", "answer": "a"}], "breakpoint": []},
        "q", "a", "videos/1.mp4",
    ),
    "sharegpt4v": (
        {"id": "1", "image": "wikiart/images/1.jpg", "conversations": HUMAN},
        "<image>\nq", "a", f"{SHARED}/wikiart.zip/data/wikiart/images/1.jpg",
    ),
    "llava-instruct-150k": (
        {"id": "1", "image": "ocr_vqa/images/1.jpg", "conversations": HUMAN},
        "<image>\nq", "a", f"{SHARED}/ocr_vqa.tar/ocr_vqa/images/1.jpg",
    ),
    "llava-pretrain": (
        {"id": "1", "image": "00453/1.jpg", "conversations": HUMAN}, "<image>\nq", "a", "images.zip/00453/1.jpg",
    ),
    "text-caps": (
        {"image_id": "1", "image": CELL, "question": "", "reference_strs": ["a", "a"]}, DESCRIBE, "a", CELL,
    ),
    "lnqa": (
        {"image": CELL, "conversations": [{"question": "q", "answer": "a"}]}, "q", "a", CELL,
    ),
    "midefics": (
        {"image": CELL, "conversation": {"data": [{"question": "q", "answer": "a"}]}}, "q", "a", CELL,
    ),
    "okvqa": ({"image": CELL, "question": "q", "answers": ["a", "a"]}, "q", "a", CELL),
    "a-okvqa": (
        {"image": CELL, "question": "q", "choices": ["x"], "direct_answers": "['x']", "rationales": ["a", "a", "a"]},
        "q", "a", CELL,
    ),
    "ocr-vqa": (
        {"image": CELL, "image_id": "0", "questions": ["q"], "answers": ["a"], "title": "t"}, "q", "a", CELL,
    ),
    "science-qa": (
        {"image": CELL, "question": "q", "choices": ["x", "y"], "answer": 1, "solution": "s"},
        "q\nChoices: x, y", "s\nSo the answer is y", CELL,
    ),
    "gqa": (
        {"imageId": "2354786", "question": "q", "answer": "yes", "fullAnswer": "a"},
        "q", "a", f"{SHARED}/gqa.zip/images/2354786.jpg",
    ),
    "llava-instruct-mix": (
        {"images": [CELL], "messages": [
            {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "q"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "a"}]}]},
        "<image>q", "a", CELL,
    ),
    "latex-ocr-print": ({"image": CELL, "text": "x^2"}, "Using LaTeX to perform OCR on the image.", "x^2", CELL),
    "capcha-images": ({"image": CELL, "solution": "4821"}, "What does the picture say?", "4821", CELL),
    "llava-med-zh-instruct": ({"images": [CELL], "messages": ROLES}, "<image>\nq", "a", CELL),
    "mind2web": (
        {"action_uid": "u", "screenshot": CELL, "cleaned_html": "<html>", "confirmed_task": "Go", "website": "x",
         "action_reprs": ["[link]  Home -> CLICK", "[box]  City -> TYPE: Rome"], "target_action_index": "1",
         "target_action_reprs": "[box]  City -> TYPE: Rome"},
        "The page:<image>\nIts HTML:\n<html>\nTask: Go\nDone so far: [link]  Home -> CLICK",
        'Action: TYPE\nAction Input: {"element": "[box]  City", "content": "Rome"}', CELL,
    ),
}  # fmt: skip
"""Name -> a record, the question (or the ones it is drawn from), the answer, and what is shown."""


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_becomes_a_question_an_answer_and_what_is_shown(name: str) -> None:
    record, question, answer, shown = RECORDS[name]
    row = converted(name, record)

    assert isinstance(row, Conversation)
    asked, given = row.messages
    assert (asked.role, given.role, given.content) == ("user", "assistant", answer)
    assert asked.content in question if isinstance(question, tuple) else asked.content == question
    assert [*row.media.images, *row.media.videos, *row.media.audios] == [shown]


def test_m3it_has_an_instruction_and_pictures_as_text() -> None:
    record = {"instruction": "s", "inputs": "", "image_base64_str": ["/9j/4AAQ", "iVBORw0K"], "outputs": "a"}
    row = converted("m3it", record)

    assert [(message.role, message.content) for message in row.messages] == [
        ("system", "s"), ("user", ""), ("assistant", "a"),
    ]  # fmt: skip
    assert row.media.images == ("data:image/jpeg;base64,/9j/4AAQ", "data:image/png;base64,iVBORw0K")


BOXED = {"image_path": "coco/train2014/1.jpg", "bbox": [1.4, 2.6, 30.0, 40.2], "captions": ["left cat", "cat"]}


@pytest.mark.parametrize("name", ["refcoco", "refcocog"])
def test_things_in_a_picture_are_named_or_found(name: str) -> None:
    named = converted(f"{name}-unofficial-caption", BOXED)
    found = converted(f"{name}-unofficial-grounding", BOXED)

    assert named.messages[0].content in NAME_BOX and named.messages[1].content == "<ref-object>"
    assert found.messages[0].content in LOCATE and found.messages[1].content == "<bbox>"
    assert named.media == found.media
    assert found.media.images == ("we_dont_produce_water/coco_res/coco_2014.zip/train2014/1.jpg",)
    thing = {"caption": "left cat", "bbox": [1, 3, 30, 40], "bbox_type": "real", "image": 0}
    assert found.media.objects == (thing,)


def test_phrases_of_a_caption_have_boxes() -> None:
    record = {
        "url": LINK,
        "caption": "a dog near a cat",
        "ref_exps": [[11.0, 16.0, 0.5, 0.5, 1.0, 1.0, 0.9], [0.0, 5.0, 0.0, 0.0, 0.5, 0.5, 0.8]],
    }
    row = converted("grit", record)

    assert row.messages[1].content == "<ref-object><bbox> near <ref-object><bbox>"
    assert [(thing["caption"], thing["bbox"]) for thing in row.media.objects] == [
        ("a dog", [0.0, 0.0, 0.5, 0.5]),
        ("a cat", [0.5, 0.5, 1.0, 1.0]),
    ]
    assert row.media.images == (LINK,)


def test_an_answer_about_a_picture_is_preferred() -> None:
    row = converted("rlaif-v", {"image": CELL, "question": "q", "chosen": "a", "rejected": "b", "idx": 1})

    assert isinstance(row, Preference) and row.rejected is not None
    assert (row.chosen.messages[-1].content, row.rejected.messages[-1].content) == ("a", "b")
    assert row.chosen.media.images == (CELL,)


def test_the_calls_of_an_agent_are_declared() -> None:
    row = converted("mind2web", RECORDS["mind2web"][0])
    assert [tool["name"] for tool in row.tools] == ["CLICK", "TYPE", "SELECT"]


def test_a_dialogue_without_a_picture_stays() -> None:
    row = converted("llava-instruct-150k", {"id": "1", "conversations": HUMAN})
    assert row.media.images == ()


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("llava-instruct-150k", {"image": "elsewhere/1.jpg", "conversations": HUMAN}, "missing file: image"),
    ("llava-data-instruct", {"images": None, "conversation": ROLES}, "not for training: images"),
    ("mantis-instruct", {"images": [], "conversation": ROLES}, "not for training: images"),
    ("llava-pretrain", {"image": "", "conversations": HUMAN}, "empty value: image"),
    ("science-qa", {**RECORDS["science-qa"][0], "image": None}, "not for training: image"),
    ("sa1b-dense-caption", {"url": LINK, "cap_seg": "{}"}, "empty value: response"),
    ("video-chatgpt", {"video_name": "v", "question_1": "None", "answer": "a"}, "empty value: question"),
    ("egoschema", {**RECORDS["egoschema"][0], "answer": None}, "wrong type: answer"),
    ("moviechat-1k-test", {"info": {"video_path": "1.mp4"}, "global": []}, "empty value: global"),
    ("refcoco-unofficial-caption", {**BOXED, "bbox": [1, 2]}, "wrong type: bbox"),
    ("grit", {"url": LINK, "caption": "a dog", "ref_exps": [[0, 4, 0, 0, 1, 1], [2, 5, 0, 0, 1, 1]]}, "overlap"),
    ("ocr-vqa", {"image": CELL, "questions": ["q", "p"], "answers": ["a"]}, "wrong type: answers"),
    ("text-caps", {"image": CELL, "reference_strs": []}, "empty value: response"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "record", "reason"), BAD, ids=[name for name, *_ in BAD])
def test_what_cannot_be_used_is_named(name: str, record: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        converted(name, record)
