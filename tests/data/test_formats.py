"""Row formats: what each row means, and what is said of rows that mean nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swift.data.formats import OTHER_PROMPT, convert
from swift.prompts.bad_row import BadRow
from swift.prompts.types import Conversation, Preference, ToolCall

CASES = json.loads((Path(__file__).parents[1] / "fixtures" / "dataset_cases.json").read_text("utf-8"))
READ_BETTER = {
    "sharegpt_conversations_human_gpt",
    "messages_function_role",
    "sharegpt_conversations_system_key",
    "rejected_response_messages",
    "rejected_response_alpaca",
}
"""Rows the 2.5 release refused or read in part, and that are read whole here."""
NAMED_AS_BAD = {
    "alpaca_output_none_and_empty",
    "query_response_none_response",
    "messages_empty_assistant",
    "sharegpt_conversations_odd",
    "sharegpt_conversations_one_turn",
    "unknown_columns",
}
"""Cases with rows that have nothing to train on: kept by the 2.5 release, dropped by it, or the end of its run."""


def listed(rows: Any) -> list[dict[str, Any]]:
    return rows if isinstance(rows, list) else []


def flat(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in conversation.messages]


def expected(row: dict[str, Any]) -> list[tuple[str, str]]:
    """The turns of a row in the columns of the 2.5 release."""
    turns = [("system", row["system"])] if row.get("system") is not None else []
    roles = row.get("history_roles") or [("user", "assistant")] * len(row.get("history") or [])
    for pair, names in zip(row.get("history") or [], roles, strict=True):
        turns += zip(names, pair, strict=True)
    if "query" in row:
        turns.append((row.get("query_role") or "user", row["query"]))
    return [*turns, ("assistant", row["response"])]


@pytest.fixture(autouse=True)
def media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jpg", "b.jpg", "v.mp4", "a.wav"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in CASES["smart_preprocessor"]
        if listed(case["input"]) and case["case"] not in NAMED_AS_BAD | READ_BETTER
    ],
    ids=lambda case: case["case"],
)
def test_rows_mean_what_they_meant_in_the_contract(case: dict[str, Any]) -> None:
    for given, wanted in zip(case["input"], case["output"], strict=True):
        row = convert(given).row
        chosen = row.chosen if isinstance(row, Preference) else row

        assert isinstance(chosen, Conversation)
        if not (wanted.get("system") is None and given.get("system") == ""):
            assert flat(chosen) == expected(wanted)
        if wanted.get("rejected_response"):
            assert isinstance(row, Preference) and row.rejected is not None
            assert row.rejected.messages[-1].content == wanted["rejected_response"]
        if "label" in wanted:
            assert isinstance(row, Preference) and row.label is wanted["label"]
        images = wanted.get("images") or []
        assert list(chosen.media.images) == ([images] if isinstance(images, str) else images)
        assert len(chosen.tools) == (1 if wanted.get("tools") else 0)
        assert len(chosen.media.objects) == (1 if wanted.get("objects") else 0)


def test_nothing_of_a_row_is_lost() -> None:
    both = convert({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "good"}],
                    "rejected_response": "bad", "system": "S", "label": True}).row  # fmt: skip
    assert isinstance(both, Preference) and both.rejected is not None
    assert flat(both.chosen) == [("system", "S"), ("user", "q"), ("assistant", "good")]
    assert flat(both.rejected) == [("system", "S"), ("user", "q"), ("assistant", "bad")]
    assert both.label is True

    plain = convert({"query": "q", "response": "r", "id": 7, "messages": []})
    assert plain.unused == {"id", "messages"}


def test_roles_of_many_names_are_understood() -> None:
    names = {
        "human": "user",
        "gpt": "assistant",
        "bot": "assistant",
        "observation": "tool",
        "function_response": "tool",
    }
    said = [("system", "s"), ("human", "q"), ("gpt", "a"), ("observation", "o"), ("bot", "a2")]

    row = convert({"conversations": [{"from": name, "value": text} for name, text in said]}).row

    assert isinstance(row, Conversation)
    assert flat(row) == [(names.get(name, name), text) for name, text in said]


def test_function_calls_become_tool_calls() -> None:
    call = '{"name": "search", "arguments": {"q": "x"}}'
    turns = [("human", "q"), ("gpt", "Let me see."), ("function_call", call), ("observation", "o"), ("gpt", "done")]

    row = convert({"conversations": [{"from": name, "value": text} for name, text in turns], "tools": "[]"}).row

    assert isinstance(row, Conversation)
    assert [message.role for message in row.messages] == ["user", "assistant", "tool", "assistant"]
    assert row.messages[1].content == "Let me see."
    assert row.messages[1].tool_calls == (ToolCall("search", '{"q": "x"}'),)


CALL_TEXT = '{"name": "weather", "arguments": {"city": "Oslo"}}'
CALL = {"function": {"name": "weather", "arguments": {"city": "Oslo"}}}
ASKED, TOLD, SAID = {"role": "user", "content": "Cold?"}, {"role": "tool", "content": "-3"}, "Yes."
ANSWERED = {"role": "assistant", "content": SAID}
OF_OPENAI = [ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]}, TOLD]
SAME_CALL: dict[str, dict[str, Any]] = {
    "messages": {"messages": [*OF_OPENAI, ANSWERED]},
    "messages with roles of their own": {
        "messages": [ASKED, {"role": "tool_call", "content": CALL_TEXT}, {**TOLD, "role": "tool_response"}, ANSWERED]
    },
    "conversations": {
        "conversations": [
            {"from": "human", "value": "Cold?"},
            {"from": "function_call", "value": CALL_TEXT},
            {"from": "observation", "value": "-3"},
            {"from": "gpt", "value": SAID},
        ]
    },
    "query/response": {
        "history": [["Cold?", CALL_TEXT]],
        "history_roles": [["user", "function_call"]],
        "query": "-3",
        "query_role": "tool",
        "response": SAID,
    },
    "prompt/completion": {"prompt": OF_OPENAI, "completion": [ANSWERED]},
    "chosen/rejected": {"messages": OF_OPENAI, "chosen": SAID, "rejected": "No."},
}


@pytest.mark.parametrize("name", SAME_CALL)
def test_a_tool_call_is_the_same_in_every_format(name: str) -> None:
    row = convert({"tools": [{"name": "weather"}], **SAME_CALL[name]}).row
    conversation = row.chosen if isinstance(row, Preference) else row
    assert flat(conversation) == [("user", "Cold?"), ("assistant", ""), ("tool", "-3"), ("assistant", SAID)]
    assert conversation.messages[1].tool_calls == (ToolCall("weather", '{"city": "Oslo"}'),)
    assert conversation.tools == ({"name": "weather"},)


def test_a_call_in_the_history_that_is_no_call_is_named() -> None:
    row = {**SAME_CALL["query/response"], "history": [["Cold?", "weather please"]]}
    with pytest.raises(BadRow) as caught:
        convert(row)
    assert caught.value.key == "history[0][1]"


def test_openai_messages_keep_calls_parts_weights_and_reasoning() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    parts = [{"type": "text", "text": "what is "}, {"type": "image_url", "image_url": {"url": "a.jpg"}}]
    row = convert(
        {
            "messages": [
                {"role": "developer", "content": "S"},
                {"role": "user", "content": parts},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": "", "tool_call_id": "c1"},
                {"role": "assistant", "content": "a cat", "weight": 0, "reasoning_content": "look"},
            ],
            "tools": [{"type": "function", "function": {"name": "f"}}],
        }
    ).row

    assert isinstance(row, Conversation)
    assert flat(row) == [
        ("system", "S"), ("user", "what is <image>"), ("assistant", ""), ("tool", ""), ("assistant", "a cat"),
    ]  # fmt: skip
    assert row.media.images == ("a.jpg",)
    assert row.messages[2].tool_calls == (ToolCall("f", '{"a": 1}', "c1"),)
    assert (row.messages[4].weight, row.messages[4].reasoning) == (0.0, "look")
    assert row.tools[0]["function"]["name"] == "f"


PROMPT = [{"role": "user", "content": "q"}]
GOOD, BAD = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}
PAIRS: dict[str, dict[str, Any]] = {
    "query": {"query": "q", "response": "good", "rejected_response": "bad"},
    "query and ends": {"query": "q", "chosen": "good", "rejected": "bad"},
    "alpaca": {"instruction": "q", "input": "", "output": "good", "rejected_response": "bad"},
    "alpaca and ends": {"instruction": "q", "chosen": "good", "rejected": "bad"},
    "conversations": {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "bad"},
    },
    "messages": {"messages": [*PROMPT, GOOD], "rejected_response": "bad"},
    "messages twice": {"messages": [*PROMPT, GOOD], "rejected_messages": [*PROMPT, BAD]},
    "prompt and texts": {"prompt": "q", "chosen": "good", "rejected": "bad"},
    "prompt and turns": {"prompt": PROMPT, "chosen": [GOOD], "rejected": [BAD]},
    "whole conversations": {"chosen": [*PROMPT, GOOD], "rejected": [*PROMPT, BAD]},
    "UltraFeedback, binarized": {
        **{"prompt": "q", "prompt_id": "ab", "messages": [*PROMPT, GOOD], "score_chosen": 8.0, "score_rejected": 3.0},
        **{"chosen": [*PROMPT, GOOD], "rejected": [*PROMPT, BAD]},
    },
    "HH-RLHF": {"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"},
    "Orca by Intel": {"question": "q", "chosen": "good", "rejected": "bad"},
    "Orca by Argilla": {"input": "q", "chosen": "good", "rejected": "bad", "order": ["a", "b"], "status": "tie"},
    "Capybara": {
        **{"conversation": [{"input": "q", "output": "good"}], "prompt": "q", "turns": 1},
        **{"chosen": [*PROMPT, GOOD], "rejected": [*PROMPT, BAD]},
    },
    "turns as JSON": {"prompt": "q", "chosen": json.dumps([*PROMPT, GOOD]), "rejected": json.dumps([*PROMPT, BAD])},
    "prompt repeated in the ends": {"prompt": "q", "chosen": [*PROMPT, GOOD], "rejected": [*PROMPT, BAD]},
}


@pytest.mark.parametrize("name", PAIRS)
def test_preferences_in_every_format(name: str) -> None:
    row = convert(PAIRS[name]).row

    assert isinstance(row, Preference) and row.rejected is not None
    assert flat(row.chosen) == [("user", "q"), ("assistant", "good")]
    assert flat(row.rejected) == [("user", "q"), ("assistant", "bad")]


def test_prompts_of_a_pair_that_differ_are_noted() -> None:
    other = [{"role": "user", "content": "p"}]
    same = {"prompt": "q", "chosen": [*PROMPT, GOOD], "rejected": [BAD]}
    assert convert(same).notes == ()
    assert convert({**same, "rejected": [*other, BAD]}).notes == (OTHER_PROMPT,)
    assert convert({"messages": [*PROMPT, GOOD], "rejected_messages": [*other, BAD]}).notes == (OTHER_PROMPT,)


def test_answers_that_look_like_turns_stay_answers() -> None:
    texts = ['[{"name": "f"}]', "Say:\n\nHuman: q\n\nAssistant: a", "[{broken", "Human: q\n\nAssistant: a"]
    for text in texts:
        row = convert({"query": "q", "chosen": text, "rejected": "bad"}).row
        assert isinstance(row, Preference) and row.chosen.messages[-1].content == text


@pytest.mark.parametrize("label", [True, 1, 1.0, "true", "True", "1"])
def test_kto_labels(label: Any) -> None:
    for fields in ({"query": "q", "response": "r"}, {"prompt": "q", "completion": "r"}, {"messages": [*PROMPT, GOOD]}):
        for key in ("label", "kto_tag"):
            converted = convert({**fields, key: label}, labelled=True)
            assert isinstance(converted.row, Preference) and not converted.unused
            assert converted.row.label is True and converted.row.rejected is None


def test_a_prompt_may_lack_its_answer() -> None:
    for fields in (
        {"query": "q"},
        {"query": "q", "response": None},
        {"messages": PROMPT},
        {"instruction": "q"},
        {"prompt": "q"},
    ):
        row = convert(fields, answered=False).row
        assert isinstance(row, Conversation) and flat(row) == [("user", "q")]


def test_users_in_a_row_are_joined_and_noted() -> None:
    converted = convert({"messages": [*PROMPT, {"role": "user", "content": "more"}, GOOD]})

    assert isinstance(converted.row, Conversation)
    assert flat(converted.row)[0] == ("user", "q\nmore")
    assert converted.notes == ("user turns in a row joined",)


A, U, S, T = "assistant", "user", "system", "tool"
FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "null answer": ({"query": "q", "response": None}, "empty value", "response: expected some text, got null"),
    "empty answer": ({"instruction": "q", "output": ""}, "empty value", 'output: expected some text, got ""'),
    "empty question": ({"query": " ", "response": "r"}, "empty value", 'query: expected some text, got " "'),
    "number": ({"query": 3, "response": "r"}, "wrong type", "query: expected text, got 3"),
    "list": ({"query": "q", "response": ["r"]}, "wrong type", 'response: expected text, got ["r"]'),
    "worse answers": (
        {"query": "q", "response": "r", "rejected_response": ["a", "b"]},
        "wrong type",
        "rejected_response: expected a text or turns; the answers of a pair are `chosen` and `rejected`",
    ),
    "ranked answers": (
        {"instruction": "q", "output": ["good", "bad"]},
        "wrong type",
        "output: expected a text or turns; the answers of a pair are `chosen` and `rejected`",
    ),
    "no answer": ({"query": "q"}, "missing key", 'response: expected the answer to train on, got ["query"]'),
    "history": ({"query": "q", "response": "r", "history": [["a"]]}, "wrong type", "history[0]: expected a pair of"),
    "history text": ({"query": "q", "response": "r", "history": "[["}, "wrong type", "history: expected a list"),
    "messages text": ({"messages": "hello"}, "wrong type", 'messages: expected a list, got "hello"'),
    "no messages": ({"messages": []}, "empty value", "messages: expected a list of turns, got []"),
    "turn": ({"messages": ["hi"]}, "wrong type", "messages[0]: expected an object with role and content"),
    "no role": ({"messages": [{"content": "hi"}]}, "missing key", "messages[0].role: expected system, user"),
    "role": (
        {"messages": [{"role": "narrator", "content": "x"}]},
        "unknown role",
        "messages[0].role: expected system, user",
    ),
    "assistant first": (
        {"messages": [GOOD, *PROMPT, GOOD]},
        "roles out of order",
        "messages[0]: expected a user turn first",
    ),
    "no reply": (
        {"messages": [*PROMPT, GOOD, *PROMPT]},
        "roles out of order",
        "messages[2]: expected an assistant turn at the end",
    ),
    "two answers": (
        {"messages": [*PROMPT, GOOD, BAD]},
        "roles out of order",
        "messages[2]: expected a turn of user or tool after",
    ),
    "late system": (
        {"messages": [*PROMPT, GOOD, {"role": S, "content": "s"}]},
        "roles out of order",
        "messages[2]: expected a system turn only",
    ),
    "tool first": (
        {"messages": [*PROMPT, {"role": T, "content": "o"}]},
        "roles out of order",
        "messages[1]: expected a turn of",
    ),
    "call": (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": "f(x)"}]},
        "wrong type",
        'conversations[1].value: expected JSON with name and arguments, got "f(x)"',
    ),
    "tools": ({"query": "q", "response": "r", "tools": "{"}, "wrong type", "tools: expected a list"),
    "image": (
        {"query": "q", "response": "r", "images": ["no.jpg"]},
        "missing file",
        "images[0]: expected a file that exists",
    ),
    "NaN": (
        {"query": "q", "response": "r", "label": float("nan")},
        "wrong type",
        "label: expected true or false, got NaN",
    ),
    "two answers to nothing": (
        {"chosen": "a", "rejected": "b", "id": 1},
        "missing key",
        "prompt: expected the prompt of",
    ),
    "unknown": ({"front": "q", "back": "a"}, "unknown format", 'got ["back", "front"]'),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_name_key_expectation_and_value(name: str) -> None:
    row, reason, detail = FAULTS[name]

    with pytest.raises(BadRow) as fault:
        convert(row)

    assert fault.value.reason == reason
    assert detail in fault.value.detail


@pytest.mark.parametrize("label", [None, 2, "maybe", float("nan")])
def test_kto_needs_a_label(label: Any) -> None:
    with pytest.raises(BadRow, match="label: expected true or false"):
        convert({"query": "q", "response": "r", "label": label}, labelled=True)


def test_other_columns_called_label_are_no_label() -> None:
    assert isinstance(convert({"query": "q", "response": "r", "label": 3}).row, Conversation)


def test_a_row_that_is_no_object() -> None:
    with pytest.raises(BadRow, match="wrong type: expected an object with named fields, got \\[1, 2\\]"):
        convert([1, 2])  # type: ignore[arg-type]


def test_long_values_are_cut_in_the_message() -> None:
    with pytest.raises(BadRow) as fault:
        convert({"query": "q", "response": ["x" * 10_000]})
    assert len(fault.value.detail) < 200


def test_files_that_a_question_names_are_shown_in_its_place(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a.png", "b.png", "c.wav"):
        (data / name).write_bytes(b"x")
    history = [["<img>b.png</img> and", "an answer with <img>x</img>"]]
    row = {"query": "<img>a.png</img><audio>c.wav</audio>what?", "response": "r", "history": history}
    shown = convert(row, folder=data, media_in_text=True).row
    assert isinstance(shown, Conversation)
    assert shown.media.images == (str(data / "b.png"), str(data / "a.png"))
    assert shown.media.audios == (str(data / "c.wav"),)
    texts = [message.content for message in shown.messages]
    assert texts == ["<image> and", "an answer with <img>x</img>", "<image><audio>what?", "r"]
    plain = convert(row, folder=data).row
    assert isinstance(plain, Conversation) and plain.messages[-2].content == row["query"]
    for more, reason in (({"images": ["a.png"]}, "images in the text and beside it"), ({}, "missing file")):
        with pytest.raises(BadRow, match=reason):
            bad = {"query": f"<img>{'a' if more else 'gone'}.png</img>", "response": "r", **more}
            convert(bad, folder=data, media_in_text=True)


def test_media_beside_the_data_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "c.jpg").write_bytes(b"x")
    row = convert({"query": "q", "response": "r", "images": ["c.jpg"]}, folder=tmp_path / "data").row
    assert isinstance(row, Conversation) and row.media.images == (str(tmp_path / "data" / "c.jpg"),)
    link = convert({"query": "q", "response": "r", "images": " https://x.y/z.jpg\n"}).row
    assert isinstance(link, Conversation) and link.media.images == ("https://x.y/z.jpg",)


def test_columns_of_media_as_people_and_tables_fill_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.png").write_bytes(b"x")
    path, content = str(tmp_path / "a.png"), "iVBOR" * 100
    for given, read in [
        (["~/a.png"], (path,)),
        ([f" {path}\n"], (path,)),
        ([path, None], (path,)),
        ([None], ()),
        ("", ()),
        ([""], ()),
        ([{"bytes": None, "path": None}, {"path": path}], (path,)),
        ([{"bytes": content}], (f"data:;base64,{content}",)),
        ([{"type": "image", "image": path}], (path,)),
    ]:
        row = convert({"query": "q", "response": "r", "images": given}).row
        assert isinstance(row, Conversation) and row.media.images == read, given
    # Something that nobody reads is no empty place: the row would be trained without its picture.
    with pytest.raises(BadRow, match="a path, url or bytes"):
        convert({"query": "q", "response": "r", "images": [{"file": path}]})


def media_turns(*users: Any, **columns: Any) -> dict[str, Any]:
    """A row whose user turns have these contents, each answered."""
    turns = [
        {"role": role, "content": content} for user in users for role, content in (("user", user), ("assistant", "r"))
    ]
    return {"messages": turns, **columns}


def test_sounds_in_parts_as_clients_write_them() -> None:
    def heard(**sound: Any) -> tuple[str, ...]:
        row = convert(media_turns([{"type": "input_audio", "input_audio": sound}])).row
        assert isinstance(row, Conversation)
        return row.media.audios

    assert heard(data="UklG", format="wav") == ("data:audio/wav;base64,UklG",)
    assert heard(data="UklG") == ("data:;base64,UklG",)
    assert heard(data="data:audio/mp3;base64,UklG", format="wav") == ("data:audio/mp3;base64,UklG",)
    with pytest.raises(BadRow, match="got 5"):
        heard(data=5, format="wav")
    with pytest.raises(BadRow, match="missing audios"):
        heard(format="wav")


PLACE, WORD = {"type": "image", "text": None}, {"type": "text", "text": "what?"}


def test_parts_may_stand_for_images_of_a_column() -> None:
    for row, images, first in (
        (media_turns([PLACE, WORD], images=["a"]), ("a",), "<image>what?"),
        (media_turns([WORD, PLACE], image="a"), ("a",), "what?<image>"),
        (media_turns([PLACE, WORD], [PLACE, PLACE], images=["a", "b", "c"]), ("a", "b", "c"), "<image>what?"),
        (media_turns([{**PLACE, "index": 1}, {**PLACE, "index": 0}], images=["a", "b"]), ("b", "a"), "<image><image>"),
        (media_turns([{**PLACE, "index": 0}, {**PLACE, "index": 0}], images=["a"]), ("a", "a"), "<image><image>"),
        (media_turns([{"type": "image", "image": "a"}, WORD], images=["a"]), ("a",), "<image>what?"),
        (media_turns([PLACE, WORD], images=["a", "b"]), ("a", "b"), "<image>what?"),
    ):
        read = convert(row, media_there=False)
        assert isinstance(read.row, Conversation)
        assert (read.row.media.images, read.row.messages[0].content) == (images, first)
        assert not read.unused
    preferred = convert({**media_turns([PLACE, WORD], images=["a"]), "rejected_response": "no"}, media_there=False).row
    assert isinstance(preferred, Preference) and preferred.rejected is not None
    assert preferred.chosen.media.images == preferred.rejected.media.images == ("a",)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (media_turns([PLACE, WORD]), "missing images: images: expected 1 of them for the turns, got 0"),
        (media_turns([PLACE, PLACE], images=["a"]), "missing images: images: expected 2 of them for the turns, got 1"),
        (media_turns([{**PLACE, "index": 4}, WORD], images=["a"]), "expected 5 of them for the turns, got 1"),
        (media_turns([{**PLACE, "index": -1}, WORD], images=["a"]), "missing images"),
        (
            media_turns([{"type": "image", "image": "a"}], images=["b"]),
            "images in the turns and beside them: images[0]",
        ),
    ],
)
def test_parts_and_columns_that_do_not_fit_are_named(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow) as fault:
        convert(row, media_there=False)
    assert reason in str(fault.value)


def test_links_are_read_however_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_text("x")
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    for link, read in {
        f"file://{tmp_path}/a%20b.png": f"{tmp_path}/a b.png",
        f"FILE://localhost{tmp_path}/a b.png": f"{tmp_path}/a b.png",
        "HTTPS://x.y/A.png": "https://x.y/A.png",
        "Data:image/png;base64,AAAA": "data:image/png;base64,AAAA",
        "iVBORw0K" * 40: "data:;base64," + "iVBORw0K" * 40,
    }.items():
        row = convert({"query": "q", "response": "r", "images": [link]}, folder=tmp_path).row
        assert isinstance(row, Conversation) and row.media.images == (read,)
    anthropic = convert(media_turns([{"type": "image", "source": source}, WORD])).row
    assert isinstance(anthropic, Conversation) and anthropic.media.images == ("data:image/png;base64,AAAA",)
    for name in ("x" * 5000 + ".png", "a\0b.png", "é" * 300, "\ud800.png"):
        with pytest.raises(BadRow, match="missing file"):
            convert({"query": "q", "response": "r", "images": [name]}, folder=tmp_path)


@pytest.mark.parametrize(
    ("row", "remark"),
    [
        ({"imgs": ["a.png"]}, 'imgs looks like images, which the model is not shown: --columns \'{"imgs": "images"}\''),
        ({"image_url": "https://example.org/a.jpg?x=1"}, "image_url looks like images"),
        ({"clip": {"path": "a.mp4", "bytes": None}}, "clip looks like videos"),
        ({"picture": "data:image/png;base64,AAAA"}, "picture looks like images"),
        ({"file_name": "a.png", "images": ["https://example.org/b.png"]}, None),
        ({"title": "about a.png and more", "page": "a.html", "n": 5, "none": None, "empty": []}, None),
    ],
)
def test_media_under_a_name_that_nothing_reads_are_pointed_out(row: dict[str, Any], remark: str | None) -> None:
    given = {"query": "q", "response": "r", **row}
    notes = convert(given, media_in_text=True).notes
    assert len(notes) == (remark is not None) and all(note.startswith(remark or "") for note in notes)
    assert convert(given).notes == ()  # to a model of text it is a column like others


def test_settings_of_one_medium_are_pointed_out_and_its_frames_may_be_listed() -> None:
    frames = ["https://example.org/1.png", "https://example.org/2.png"]
    parts = [{"type": "video", "video": frames, "fps": 1.0}, {"type": "text", "text": "q"}]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": "r"}]
    converted = convert({"messages": turns}, media_in_text=True)
    assert isinstance(converted.row, Conversation) and converted.row.media.videos == (tuple(frames),)
    (note,) = converted.notes
    assert "content[].fps is not read" in note and "--model_kwargs '{\"fps\": …}'" in note
    for bad in ([], [1], [[frames[0]]]):
        parts[0]["video"] = bad
        with pytest.raises(BadRow):
            convert({"messages": turns}, media_in_text=True)
