"""Own questions: what a config and its files may say, and that every mistake is named by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swift.core.errors import SwiftError
from swift.evaluation.questions import Choice, Open, Subset, read_suites
from swift.plan.evaluation import read_config

HEADER = "id,question,A,B,C,D,answer,explanation\n"
GOOD = "1,Which is red?,Mars,Venus,Earth,Moon,A,\n"


def suite_in(folder: Path, files: dict[str, str | bytes], **entry: Any) -> Path:
    """A config with one suite of these files -> its path."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    for name, text in files.items():
        (data / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    config = folder / "config.json"
    config.write_text(json.dumps([{"name": "own", "pattern": "ceval", "dataset": "data", **entry}]))
    return config


def subsets_of(config: Path, rows: slice = slice(None), few_shot: int = 5) -> list[Subset]:
    return read_suites(read_config(config), rows, few_shot)


def test_choices_with_their_solved_ones(tmp_path: Path) -> None:
    second = '2,"Which, of these, is a star?",Sun,Io,,,a,\n'
    config = suite_in(tmp_path, {"sky_val.csv": "\ufeff" + HEADER + GOOD + second, "sky_dev.csv": HEADER + GOOD})
    (subset,) = subsets_of(config)
    assert (subset.suite, subset.name) == ("own", "sky")
    first, other = subset.questions
    assert isinstance(other, Choice) and isinstance(first, Choice)
    assert str(first.origin).endswith("sky_val.csv:2")
    assert (other.question, dict(other.options), other.answer) == (
        "Which, of these, is a star?",
        {"A": "Sun", "B": "Io"},
        "A",
    )
    assert [shot.answer for shot in subset.shots] == ["A"]
    assert subsets_of(config, few_shot=0)[0].shots == ()
    assert [q.id for q in subsets_of(config, slice(1, 2))[0].questions] == ["2"]


def test_choices_as_others_write_them(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "question": "Which?", "a": "x", "b": "y", "c": "z", "d": "u", "e": "v", "answer": "e"},
        {"id": 1, "query": "Which of two?", "A": "x", "B": 2, "C": None, "response": "(B)", "system": "Be brief."},
    ]
    files: dict[str, str | bytes] = {"mixed_val.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}
    files["lines_val.csv"] = HEADER + '1,"Which ""one""\nis, it?","two\nlines",b,,,A,\n'
    found = {subset.name: subset.questions for subset in subsets_of(suite_in(tmp_path, files, pattern="general_mcq"))}
    five, two = found["mixed"]
    assert isinstance(five, Choice) and isinstance(two, Choice)
    assert (list(five.options), five.answer) == ([*"ABCDE"], "E")
    assert (dict(two.options), two.answer, two.system) == ({"A": "x", "B": "2"}, "B", "Be brief.")
    (lines,) = found["lines"]
    assert isinstance(lines, Choice)
    assert lines.question == 'Which "one"\nis, it?' and lines.options["A"] == "two\nlines"


def test_open_questions_in_the_formats_of_training_rows(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"query": "2+2?", "response": "4", "system": "Be brief.", "history": [["Hi", "Hello"]]},
        {"question": "Greet me.", "answer": ["Hello", "Hi"]},
        {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me"}]},
    ]
    config = suite_in(tmp_path, {"own.jsonl": "".join(json.dumps(r) + "\n" for r in rows)}, pattern="general_qa")
    (subset,) = subsets_of(config)
    first, second, third = subset.questions
    assert isinstance(first, Open) and isinstance(second, Open) and isinstance(third, Open)
    assert [m.content for m in first.conversation.messages] == ["Be brief.", "Hi", "Hello", "2+2?"]
    assert second.references == ("Hello", "Hi")
    assert third.references == ("Me",)


def test_the_subset_list_chooses_files(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"{name}.jsonl": '{"query": "q", "response": "a"}\n' for name in "abc"}
    config = suite_in(tmp_path, files, pattern="general_qa", subset_list=["c", "a"])
    assert [subset.name for subset in subsets_of(config)] == ["c", "a"]


@pytest.mark.parametrize(
    ("files", "entry", "words"),
    [
        ({"a_val.csv": GOOD}, {"pattern": "mmlu"}, ["entry 1", "mmlu", "ceval"]),
        ({"a_val.csv": HEADER + GOOD}, {"dataset": "nowhere"}, ["nowhere"]),
        ({"a_val.csv": HEADER + GOOD}, {"subset_list": ["b"]}, ["subset b", "it has a"]),
        ({"a_val.csv": HEADER + GOOD}, {"subset_list": "a"}, ["subset_list"]),
        ({"a_val.csv": HEADER + GOOD}, {"datset": "x"}, ["`datset`"]),
        ({"a_val.csv": HEADER + GOOD}, {"name": ""}, ["`name`"]),
        ({"a.csv": HEADER + GOOD}, {}, ["no questions", "SUBSET_val.csv"]),
        ({"a_val.csv": HEADER + GOOD + "2,Which?,x,y,,,E,\n"}, {}, ["a_val.csv:3", "the answer E", "A, B"]),
        ({"a_val.csv": HEADER + GOOD + "2,Which?,x,y,z,,AC,\n"}, {}, ["a_val.csv:3", "AC are several"]),
        (
            {"a_val.csv": "Which is red?,Mars,Venus,A\nWhich is blue?,Mars,Earth,B\n"},
            {},
            ["a_val.csv:2", "names its columns"],
        ),
        ({"a_val.csv": HEADER + GOOD}, {"dataset": "data/a_val.csv"}, ["is a file", "subset_list"]),
        ({"a_val.csv": HEADER + "1,,x,y,,,A,\n" + GOOD}, {}, ["a_val.csv:2", "question"]),
        ({"a_val.csv": HEADER + "1,Which?,x,,,,A,\n"}, {}, ["a_val.csv:2", "two options"]),
        ({"a_val.csv": "id,q,A,B\n1,Which?,x,y\n"}, {}, ["a_val.csv:2", "question"]),
        ({"a_val.csv": HEADER}, {}, ["no questions"]),
        ({"a_val.csv": HEADER + "1,Wh\xff?,x,y,,,A,\n"}, {}, []),
        (
            {"a_val.csv": (HEADER + "1,红色的？,火星,金星,,,A,\n").encode("gbk")},
            {},
            ["a_val.csv:2", "no UTF-8", "iconv"],
        ),
        ({"a_val.csv": (HEADER + "1,Wh").encode() + b"\xff\xfe?,x,y,,,A,\n"}, {}, ["a_val.csv:2"]),
        ({"a.jsonl": '{"query": "q"}\n'}, {"pattern": "general_qa"}, ["a.jsonl:1", "no answer"]),
        ({"a.jsonl": '{"query": "q", "respo'}, {"pattern": "general_qa"}, ["a.jsonl:1"]),
        ({"a.jsonl": '{"query": "q", "response": []}\n'}, {"pattern": "general_qa"}, ["a.jsonl:1", "no answer"]),
        ({"a.jsonl": '{"response": "q"}\n'}, {"pattern": "general_qa"}, ["a.jsonl:1"]),
        ({"a.jsonl": ""}, {"pattern": "general_qa"}, ["no questions"]),
        (
            {"a.jsonl": '{"query": "<image>What?", "response": "x", "images": ["gone.png"]}\n'},
            {"pattern": "general_qa"},
            ["a.jsonl:1", "missing file", "gone.png"],
        ),
        ({"s_val.csv": "question,A,B,answer,image\nWhich?,x,y,A,gone.png\n"}, {}, ["s_val.csv:2", "gone.png"]),
        (
            {
                "s_val.jsonl": '{"question": "<image><image>", "A": 1, "B": 2, "answer": "A", "images": ["http://a.b/c"]}'
            },
            {},
            ["s_val.jsonl:1", "the text has 2 <image> and the row 1 images"],
        ),
    ],
)
def test_what_cannot_be_used_is_named(
    tmp_path: Path, files: dict[str, str | bytes], entry: dict[str, Any], words: list[str]
) -> None:
    config = suite_in(tmp_path, files, **entry)
    if not words:
        assert subsets_of(config)
        return
    with pytest.raises(SwiftError) as error:
        subsets_of(config)
    for word in words:
        assert word in " ".join(error.value.lines())


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "[1]", '"x"'])
def test_a_config_that_is_no_list_of_suites(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(SwiftError):
        read_config(path)


def test_all_bad_rows_are_named_together(tmp_path: Path) -> None:
    config = suite_in(tmp_path, {"a_val.csv": HEADER + "1,,x,y,,,A,\n" + GOOD + "3,Which?,x,y,,,Z,\n"})
    with pytest.raises(SwiftError) as error:
        subsets_of(config)
    assert "a_val.csv:2" in "".join(error.value.lines())
    assert "a_val.csv:4" in "".join(error.value.lines())
