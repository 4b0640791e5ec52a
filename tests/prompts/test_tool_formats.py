"""Tools as text and back: what is written for a call is read as the same call."""

from __future__ import annotations

import json

import pytest
from tests.prompts.conftest import FIXTURES

from swift.core.errors import SwiftError
from swift.prompts import tool_calls, tool_formats
from swift.prompts.call_reader import read_calls
from swift.prompts.types import Message, ToolCall

RECORDED = json.loads((FIXTURES / "agent_functions.json").read_text(encoding="utf-8"))
TOOLS = (
    {
        "type": "function",
        "function": {"name": "weather", "description": "The weather.", "parameters": {"type": "object"}},
    },
    {"name": "add", "description": "A sum.", "parameters": {"type": "object"}},
)
CALLS = (
    (ToolCall("weather", '{"city": "Oslo"}'),),
    (ToolCall("weather", '{"city": "Oslo"}'), ToolCall("add", '{"a": 1, "b": [2, {"c": "}"}]}')),
    (ToolCall("add", '{"text": "Line\\nAction: x"}'),),
    (ToolCall("add", "{}"),),
)


@pytest.mark.parametrize("name", list(tool_formats.FORMATS))
@pytest.mark.parametrize("content", ["", "I look it up.", "Two\nlines"])
@pytest.mark.parametrize("made", CALLS, ids=["one", "two", "newline", "empty"])
def test_round_trip(name: str, content: str, made: tuple[ToolCall, ...]) -> None:
    fmt = tool_formats.FORMATS[name]
    message = Message("assistant", content, tool_calls=made)
    (written,) = fmt.interleave([message])
    assert tool_formats.parse_reply(written.content, fmt) == message


@pytest.mark.parametrize("name", list(tool_formats.FORMATS))
def test_text_without_a_call_stays_as_it_is(name: str) -> None:
    for text in ("", "It is -3 degrees.", "Thought: done\nFinal Answer: 4", '{"a": 1}', "<tool_call> is a tag"):
        assert tool_formats.parse_reply(text, tool_formats.FORMATS[name]) == Message("assistant", text)


@pytest.mark.parametrize("name", list(tool_formats.FORMATS))
def test_description_names_every_tool(name: str) -> None:
    text = tool_formats.FORMATS[name].describe(TOOLS)
    assert "weather" in text
    assert "add" in text
    assert "A sum." in text


@pytest.mark.parametrize("case", RECORDED["split_action_action_input"], ids=lambda case: case["args"][0][:25])
def test_recorded_action_lines(case: dict) -> None:
    name, arguments = case["result"]
    _, found = read_calls(case["args"][0], tool_calls.ACTIONS)
    if name is None or arguments is None:
        assert found == ()
    else:
        assert (found[-1].name, found[-1].arguments) == (name, arguments.strip())


@pytest.mark.parametrize("case", RECORDED["messages_join_observation"], ids=lambda case: case["args"][0][-1]["content"])
def test_recorded_observations_join(case: dict) -> None:
    given = [Message(item["role"], item["content"]) for item in case["args"][0]]
    expected = [Message(item["role"], item["content"]) for item in case["result"]]
    assert list(tool_formats.join_observations(given)) == expected


def test_tool_without_a_name_is_named() -> None:
    with pytest.raises(SwiftError, match="a tool has no function name"):
        tool_formats.FORMATS["react_en"].describe([{"type": "function"}])


def test_thinking_is_kept_apart() -> None:
    found = tool_formats.parse_reply("<think>\nhm\n</think>\n\nYes.", tool_formats.FORMATS["react_en"])
    assert found == Message("assistant", "Yes.", reasoning="hm")
    assert tool_formats.parse_reply("hm\n</think>\n\nYes.", tool_formats.FORMATS["hermes"]).reasoning == "hm"


@pytest.mark.parametrize(
    ("syntax", "text", "content", "expected"),
    [
        (
            tool_calls.HERMES,
            'Look.\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n'
            '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>',
            "Look.",
            [("f", '{"a": 1}'), ("g", "{}")],
        ),
        (tool_calls.HERMES, '<tool_call>\n{"name": "f", "arguments": {}}', "", [("f", "{}")]),
        (
            tool_calls.HERMES,
            'Look.<tool_call>{"name": "f"}</tool_call> Then\n<tool_call>{"name": "g"}</tool_call>\nDone.',
            "Look.\nThen\nDone.",
            [("f", "{}"), ("g", "{}")],
        ),
        (tool_calls.HERMES, "<tool_call>\n{broken</tool_call>", "<tool_call>\n{broken</tool_call>", []),
        (tool_calls.LLAMA3, '{"name": "f", "parameters": {"a": "é"}}', "", [("f", '{"a": "é"}')]),
        (
            tool_calls.LLAMA3,
            '<|python_tag|>{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}',
            "",
            [("f", "{}"), ("g", "{}")],
        ),
        (tool_calls.LLAMA3, '{"name": 3}', '{"name": 3}', []),
        (tool_calls.LLAMA3, "4", "4", []),
        (
            tool_calls.DEEPSEEK,
            'Hm.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"a": 1}\n```'
            "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            "Hm.",
            [("f", '{"a": 1}')],
        ),
        (
            tool_calls.DEEPSEEK,
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            "",
            [("f", "{}")],
        ),
        (
            tool_calls.HARMONY,
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.f "
            '<|constrain|>json<|message|>{"a": 1}<|call|>',
            "",
            [("f", '{"a": 1}')],
        ),
        (
            tool_calls.HARMONY,
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>4",
            "4",
            [],
        ),
        (tool_calls.MISTRAL, '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]', "", [("f", '{"a": 1}')]),
    ],
)
def test_native_replies(
    syntax: tool_calls.CallSyntax, text: str, content: str, expected: list[tuple[str, str]]
) -> None:
    value, calls = read_calls(text, syntax)
    assert value == content
    assert [(call.name, call.arguments) for call in calls] == expected


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("react_en", 'Action: f\nAction Input: ```json\n{"a": 1}\n```', ("f", '{"a": 1}')),
        ("react_en", 'Action: f\r\nAction Input: {"a": 1}', ("f", '{"a": 1}')),
        ("react_en", "Action: f\nAction Input:", ("f", "{}")),
        (
            "hermes",
            '<tool_call>{"name": "f", "arguments": {"a": "</tool_call>"}}</tool_call>',
            ("f", '{"a": "</tool_call>"}'),
        ),
    ],
    ids=["fenced", "carriage return", "no input", "mark inside"],
)
def test_awkward_replies(name: str, text: str, expected: tuple[str, str]) -> None:
    (call,) = tool_formats.parse_reply(text, tool_formats.FORMATS[name]).tool_calls
    assert (call.name, call.arguments) == expected
