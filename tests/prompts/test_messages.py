"""What a message says is read, in all its forms and through every door: rows of files, and `swift.get_template`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from swift.core.errors import SwiftError
from swift.data.formats import PLAIN_ANSWER, convert
from swift.prompts.api import conversation_of
from swift.prompts.bad_row import BadRow
from swift.prompts.types import Conversation, Message, ToolCall

ASK = {"role": "user", "content": "q"}
SAY = {"role": "assistant", "content": "a"}
CALL = {"name": "ship", "arguments": '{"to": "Oslo"}'}
SHIP = ToolCall("ship", '{"to": "Oslo"}')


def from_file(messages: list[dict[str, Any]]) -> tuple[Message, ...]:
    row = convert({"messages": messages}).row
    assert isinstance(row, Conversation)
    return row.messages


def from_template(messages: list[dict[str, Any]]) -> tuple[Message, ...]:
    return conversation_of({"messages": messages}).messages


DOORS = pytest.mark.parametrize("read", [from_file, from_template])


@DOORS
@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        ({"function_call": CALL}, (SHIP,)),
        ({"tool_call": CALL}, (SHIP,)),
        ({"tool_calls": [{"type": "function", "function": CALL}]}, (SHIP,)),
        ({"tool_calls": [{"type": "function", "function": CALL}], "function_call": CALL}, (SHIP,)),
        ({"tool_calls": [CALL, CALL]}, (SHIP, SHIP)),
        ({"tool_calls": '[{"name": "ship", "arguments": {"to": "Oslo"}}]'}, (SHIP,)),
        ({"tool_calls": [{"name": "ship", "args": {"to": "Oslo"}, "id": "c", "type": "tool_call"}]}, ("c",)),
        ({"content": [{"type": "tool_use", "id": "c", "name": "ship", "input": {"to": "Oslo"}}]}, ("c",)),
        ({"tool_calls": [{"name": "ship", "arguments": ""}]}, (ToolCall("ship", "{}"),)),
        ({"tool_calls": [{"name": "ship", "arguments": None}]}, (ToolCall("ship", "{}"),)),
        ({"tool_calls": [{"name": "ship"}]}, (ToolCall("ship", "{}"),)),
    ],
)
def test_calls_in_all_their_forms(
    read: Callable[..., tuple[Message, ...]], answer: dict[str, Any], calls: tuple[Any, ...]
) -> None:
    calls = tuple(ToolCall(SHIP.name, SHIP.arguments, call) if isinstance(call, str) else call for call in calls)
    assert read([ASK, {"role": "assistant", **answer}])[1].tool_calls == calls


@DOORS
@pytest.mark.parametrize("given", ["{'to': 'Oslo'}", "to Oslo", "[1]", '"text"', '{"to": NaN}', ["a"], '{"to": 1'])
def test_arguments_that_are_no_json_object_are_named(read: Callable[..., Any], given: Any) -> None:
    with pytest.raises((BadRow, SwiftError), match=r"arguments are no JSON: messages\[1\].tool_calls\[0\].arguments"):
        read([ASK, {"role": "assistant", "tool_calls": [{"name": "ship", "arguments": given}]}])


@DOORS
@pytest.mark.parametrize(
    "answer",
    [
        *({"content": "a", key: "t"} for key in ("reasoning_content", "reasoning", "thinking", "think", "thought")),
        {"content": "a", "reasoning": "t", "reasoning_content": "t"},
        {"content": [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "a"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}, {"type": "text", "text": "a"}]},
    ],
)
def test_thinking_under_all_its_names(read: Callable[..., tuple[Message, ...]], answer: dict[str, Any]) -> None:
    message = read([ASK, {"role": "assistant", **answer}])[1]
    assert (message.content, message.reasoning) == ("a", "t")


@DOORS
@pytest.mark.parametrize(
    ("flags", "weight"),
    [
        ({"train": False}, 0.0),
        ({"training": True}, 1.0),
        ({"loss": 0.5}, 0.5),
        ({"weight": 0}, 0.0),
        ({"weight": 0.5, "train": True}, 0.5),
        ({"weight": 1, "train": False}, 0.0),
        ({"masked": True}, 0.0),
        ({"loss_mask": 0}, 0.0),
        ({"weight": None}, None),
    ],
)
def test_flags_of_training_under_all_their_names(
    read: Callable[..., tuple[Message, ...]], flags: dict[str, Any], weight: float | None
) -> None:
    assert read([ASK, {**SAY, **flags}])[1].weight == weight


@DOORS
def test_roles_in_any_case(read: Callable[..., tuple[Message, ...]]) -> None:
    called = {"role": "Function_Call", "content": '{"name": "ship", "arguments": {"to": "Oslo"}}'}
    turns = [
        {"role": "Human", "content": "q"},
        called,
        {"role": "ipython", "content": "ok"},
        {"role": "AI", "content": "a"},
    ]
    messages = read(turns)
    assert [message.role for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[1].tool_calls == (SHIP,)


@DOORS
@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -0.5, 10**400, "1", [1]])
def test_weights_that_mean_nothing_are_named(read: Callable[..., Any], weight: Any) -> None:
    with pytest.raises((BadRow, SwiftError), match=r"wrong weight: messages\[1\].weight: expected true, false or a nu"):
        read([ASK, {**SAY, "weight": weight}])


@DOORS
@pytest.mark.parametrize(
    "answer",
    [
        {"content": [{"type": "refusal", "refusal": "a"}]},
        {"content": [{"type": "output_text", "text": "a"}]},
        {"content": None, "refusal": "a"},
    ],
)
def test_the_text_of_a_refusal_is_text(read: Callable[..., tuple[Message, ...]], answer: dict[str, Any]) -> None:
    assert read([ASK, {"role": "assistant", **answer}])[1].content == "a"


@DOORS
@pytest.mark.parametrize(
    ("parts", "content"),
    [
        (["a", {"type": "text", "text": "b"}, {"type": "input_text", "text": "c"}], "a\nb\nc"),
        (["a ", "b", "\nc", "", "d"], "a b\nc\nd"),
        (["", "a"], "a"),
    ],
)
def test_parts_of_text_do_not_run_together(read: Callable[..., Any], parts: list[Any], content: str) -> None:
    turns = read([{"role": "user", "content": parts}, {"role": "assistant", "content": parts}])
    assert [turn.content for turn in turns] == [content] * 2


KEYED = [
    {**ASK, "thinking": "t", "train": True, "name": "Ann", "source": None, "tags": []},
    {**SAY, "score": 0, "refusal": "no"},
]


def test_other_keys_of_messages_are_named(caplog: pytest.LogCaptureFixture) -> None:
    named = {f"messages[].{key}" for key in ("thinking", "train", "name", "score", "refusal")}
    assert convert({"messages": KEYED, "id": 1}).unused == named | {"id"}
    pair = {"prompt": "q", "chosen": [{**SAY, "score": 1}], "rejected": [{**SAY, "score": 0, "judge": "me"}]}
    assert convert(pair).unused == {"chosen[].score", "rejected[].score", "rejected[].judge"}
    turns = [{"from": "human", "value": "q", "lang": "en"}, {"from": "gpt", "value": "a", "lang": "en"}]
    assert convert({"conversations": turns}).unused == {"conversations[].lang"}


def test_keys_inside_calls_and_parts_are_named() -> None:
    call = {"id": "c", "type": "function", "index": 0, "function": {**CALL, "strict": True}, "output": "sent"}
    parts = [
        {"type": "text", "text": "a", "train": False, "image": None},
        {"type": "image_url", "image_url": "i", "n": 1},
    ]
    rows = [
        {"messages": [ASK, {"role": "assistant", "content": parts, "tool_calls": [call]}]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": {**CALL, "why": "so"}}]},
        {
            "history": [["q", '{"name": "f", "why": 1}']],
            "history_roles": [["user", "tool_call"]],
            "query": "done",
            "query_role": "tool",
            "response": "a",
        },
    ]
    assert [convert(row, media_there=False).unused for row in rows] == [
        {f"messages[].{key}" for key in ("tool_calls[].output", "tool_calls[].function.strict", "content[].train")}
        | {"messages[].content[].n"},
        {"conversations[].value[].why"},
        {"history[][][].why"},
    ]


def test_get_template_reads_the_roles_of_a_history() -> None:
    row = {
        "history": [["q", '{"name": "ship", "arguments": {"to": "Oslo"}}'], ["sent", "done"]],
        "history_roles": [["user", "function_call"], ["tool", "assistant"]],
        "query": "thanks",
        "response": "a",
    }
    messages = conversation_of(row).messages
    assert [message.role for message in messages] == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    assert messages[1].tool_calls == (SHIP,) and messages[1].content == ""
    converted = convert(row).row
    assert isinstance(converted, Conversation) and converted.messages == messages
    with pytest.raises(SwiftError, match=r"unknown role: history\[0\]\[1\]"):
        conversation_of({"history": [["q", "a"]], "history_roles": [["user", "wizard"]], "query": "q"})


def test_get_template_names_what_stands_beside_messages(capsys: pytest.CaptureFixture[str]) -> None:
    beside = {"query": "another q", "history": [["a", "b"]], "system": "s", "response": None}
    conversation_of({"messages": [{"role": "system", "content": "t"}, ASK, SAY], **beside})
    logged = capsys.readouterr().err
    assert all(f"nothing reads the key {key}" in logged for key in ("query", "history", "system"))


def test_get_template_names_keys_that_nobody_reads(capsys: pytest.CaptureFixture[str]) -> None:
    conversation_of({"messages": [ASK, {**SAY, "a_key_of_my_own": 3}], "my_column": 1})
    logged = capsys.readouterr().err
    assert "nothing reads the key messages[].a_key_of_my_own" in logged
    assert "nothing reads the key my_column" in logged
    assert logging.getLogger("swift").handlers


USES = [{"type": "tool_use", "id": name, "name": "ship", "input": {"to": name}} for name in ("Oslo", "Rome")]
RESULTS = [
    {"type": "tool_result", "tool_use_id": "Rome", "content": [{"type": "text", "text": "sent to Rome"}]},
    {"type": "tool_result", "tool_use_id": "Oslo", "content": "sent to Oslo", "is_error": False},
]


@DOORS
@pytest.mark.parametrize("role", ["user", "tool"])
def test_results_that_are_parts_of_one_turn_answer_their_calls(
    read: Callable[..., tuple[Message, ...]], role: str
) -> None:
    turns = read([ASK, {"role": "assistant", "content": USES}, {"role": role, "content": RESULTS}, SAY])
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "tool", "assistant"]
    assert [turn.content for turn in turns[2:4]] == ["sent to Oslo", "sent to Rome"]


@DOORS
def test_a_result_without_its_call_is_named_by_its_part(read: Callable[..., Any]) -> None:
    turns = [ASK, {"role": "assistant", "content": USES[:1]}, {"role": "user", "content": RESULTS}, SAY]
    with pytest.raises((BadRow, SwiftError), match=r"result without its call: messages\[2\].content\[0\].tool_call_id"):
        read(turns)


def test_a_failed_result_and_what_stands_beside_results() -> None:
    failed = {**RESULTS[1], "is_error": True, "cache_control": {"type": "ephemeral"}}
    turns = [ASK, {"role": "assistant", "content": USES[:1]}, {"role": "user", "content": [failed]}, SAY]
    unused = {"messages[].content[].is_error", "messages[].content[].cache_control"}
    assert convert({"messages": turns}).unused == unused
    turns[2] = {"role": "user", "content": [failed, {"type": "text", "text": "hurry"}]}
    assert [turn.content for turn in from_template(turns)] == ["q", "", "sent to Oslo", "hurry", "a"]
    with pytest.raises(BadRow, match=r"roles out of order: messages\[2\]"):
        from_file(turns)


@DOORS
def test_thinking_in_front_of_a_call_written_as_text(read: Callable[..., tuple[Message, ...]]) -> None:
    call = {"role": "function_call", "content": '<think>\nfar away\n</think>\n{"name": "ship", "arguments": "{}"}'}
    message = read([ASK, call, {"role": "tool", "content": "sent"}, SAY])[1]
    assert (message.reasoning, message.content) == ("far away", "")
    assert message.tool_calls == (ToolCall("ship", "{}"),)


def test_thinking_in_a_column_beside_the_answer() -> None:
    thinking = {"reasoning_content": "t"}
    rows = [
        {"query": "q", "response": "a"},
        {"question": "q", "answer": "a"},
        {"instruction": "q", "output": "a"},
        {"prompt": "q", "completion": "a"},
        {"query": "q", "response": "a", "history": [["q", "a"]]},
    ]
    for row in rows:
        converted = convert({**row, **thinking})
        assert isinstance(converted.row, Conversation)
        thought = [message.reasoning for message in converted.row.messages if message.role == "assistant"]
        assert thought[-1] == "t" and not any(thought[:-1])
        assert not converted.unused
    assert conversation_of({**rows[0], **thinking}).messages[-1].reasoning == "t"
    others = [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"query": "q", "response": "n", "chosen": "a", "rejected": "b"},
        {"messages": [ASK, SAY]},
        {"response": "a"},
    ]
    for row in others:
        assert convert({**row, **thinking}).unused == {"reasoning_content"}, row


@pytest.mark.parametrize("name", ["parameters", "input_schema", "inputSchema"])
def test_tools_with_their_schema_under_all_its_names(name: str) -> None:
    schema = {"type": "object", "properties": {"to": {"type": "string"}}}
    row = {"messages": [ASK, SAY], "tools": [{"name": "ship", "description": "d", name: schema}]}
    for read in (convert(row).row, conversation_of(row)):
        assert isinstance(read, Conversation)
        assert read.tools == ({"name": "ship", "description": "d", "parameters": schema},)


@DOORS
@pytest.mark.parametrize("inline", ["<think>\nt\n</think>\n\na", "<think>\n\n</think>\n\na", "a"])
def test_thinking_in_the_text_and_beside_it_counts_once(read: Callable[..., tuple[Message, ...]], inline: str) -> None:
    message = read([ASK, {"role": "assistant", "content": inline, "reasoning_content": "t"}])[1]
    assert (message.content, message.reasoning) == ("a", "t")
    row = {"query": "q", "response": inline, "reasoning_content": "t"}
    for conversation in (convert(row).row, conversation_of(row)):
        assert isinstance(conversation, Conversation)
        assert conversation.messages[-1] == Message("assistant", "a", reasoning="t")


@DOORS
def test_two_thinkings_of_one_answer_are_named(read: Callable[..., Any]) -> None:
    answer = {"role": "assistant", "content": "<think>one</think>a", "reasoning": "another"}
    with pytest.raises((BadRow, SwiftError), match=r"thinking twice: messages\[1\].content"):
        read([ASK, answer])
    assert read([ASK, {"role": "assistant", "content": "<think>one</think>a"}])[1].reasoning is None


@DOORS
def test_a_call_that_is_written_twice_is_made_once(read: Callable[..., tuple[Message, ...]]) -> None:
    twice = {"tool_calls": [{"function": CALL}], "function_call": {**CALL, "arguments": '{"to":"Oslo"}'}}
    assert read([ASK, {"role": "assistant", **twice}])[1].tool_calls == (SHIP,)


@DOORS
@pytest.mark.parametrize("keys", [("role", "content"), ("from", "value"), ("role", "value"), ("from", "content")])
def test_roles_and_texts_under_either_name(read: Callable[..., tuple[Message, ...]], keys: tuple[str, str]) -> None:
    turns = [dict(zip(keys, turn, strict=True)) for turn in ((" User", "q"), ("GPT ", "a"))]
    assert read(turns) == (Message("user", "q"), Message("assistant", "a"))


@pytest.mark.parametrize("given", ["list", "text", "texts", "texts in a text", "alone", "alone as text"])
def test_tools_in_all_their_forms(given: str) -> None:
    tool = {"type": "function", "function": {"name": "ship"}}
    forms: dict[str, Any] = {
        "list": [tool],
        "text": json.dumps([tool]),
        "texts": [json.dumps(tool)],
        "texts in a text": json.dumps([json.dumps(tool)]),
        "alone": tool,
        "alone as text": json.dumps(tool),
    }
    row = {"messages": [ASK, SAY], "tools": forms[given]}
    for read in (convert(row).row, conversation_of(row)):
        assert isinstance(read, Conversation) and read.tools == (tool,)


@pytest.mark.parametrize("given", ["ship", [3], {"ship": {}}, ["{"]])
def test_tools_that_are_none_are_named(given: Any) -> None:
    with pytest.raises(BadRow, match="wrong type: tools"):
        convert({"messages": [ASK, SAY], "tools": given})


def test_one_answer_to_nothing_is_plain_text() -> None:
    for row in ({"messages": [SAY]}, {"conversations": [{"from": "gpt", "value": "a"}]}, {"response": "a"}):
        converted = convert(row)
        assert isinstance(converted.row, Conversation)
        assert converted.row.messages == (Message("assistant", "a"),)
        assert converted.notes == (PLAIN_ANSWER,)
        noted = convert({**row, "system": "S"}).notes
        assert noted == (PLAIN_ANSWER, "a plain text has no system text: it is left out")
    for answer in ({**SAY, "train": False}, {**SAY, "thinking": "t"}, {"role": "assistant", "tool_calls": [CALL]}):
        with pytest.raises(BadRow, match="roles out of order"):
            convert({"messages": [answer]})
