"""How the text of an answer becomes content and calls, however it is cut into pieces."""

from __future__ import annotations

import json

import pytest

from swift.prompts.tool_formats import FORMATS
from swift.serving.schema import ChatRequest
from swift.serving.tools import Reader, joined, reader, tool_use

PARAMETERS = {"type": "object", "properties": {"city": {"$ref": "#/$defs/name"}}, "$defs": {"name": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
HERMES = 'I look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
REACT = 'I look.\nAction: get_weather\nAction Input: {"city": "Rome"}\n'
GLM4 = 'get_weather\n{"city": "Rome"}'


def request(**fields: object) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": [{"role": "user", "content": "x"}], **fields})


def read(made: Reader, text: str, size: int) -> tuple[str, list]:
    """Everything a reader gives for `text` in pieces of `size` characters."""
    content, calls = "", []
    for at in range(0, len(text), size):
        more, found = made.feed(text[at : at + size], last=False)
        content, calls = content + more, calls + found
    more, found = made.feed("", last=True)
    return content + more, joined(calls + found)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(("name", "text"), [("hermes", HERMES), ("react_en", REACT), ("glm4", GLM4)])
def test_calls_are_found_however_the_text_is_cut(name: str, text: str, size: int) -> None:
    use = tool_use(request(tools=[TOOL]))
    content, (call,) = read(reader(use, FORMATS[name].parse), text, size)
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Rome"}
    assert content.strip() == ("" if name == "glm4" else "I look.")


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize("text", ["No call here.", "An Action movie < 3 { and so on", "Act", "<tool", ""])
def test_text_without_a_call_comes_through_whole(text: str, size: int) -> None:
    use = tool_use(request(tools=[TOOL]))
    assert read(reader(use, FORMATS["hermes"].parse), text, size) == (text, [])


def test_text_is_not_held_back_without_need() -> None:
    made = reader(tool_use(request(tools=[TOOL])), FORMATS["react_en"].parse)
    assert made.feed("Let me think about it. ", last=False) == ("Let me think about it. ", [])
    assert made.feed("Act", last=False) == ("", [])
    assert made.feed("ing is hard", last=False) == ("Acting is hard", [])


def test_one_call_only_when_calls_may_not_be_parallel() -> None:
    use = tool_use(request(tools=[TOOL], parallel_tool_calls=False))
    assert len(read(reader(use, FORMATS["hermes"].parse), HERMES + HERMES[8:], 1000)[1]) == 1


def test_required_calls_keep_their_definitions() -> None:
    grammar = json.loads(tool_use(request(tools=[TOOL], tool_choice="required")).grammar.text)
    assert grammar["$defs"] == PARAMETERS["$defs"]
    assert "$defs" not in grammar["items"]["anyOf"][0]["properties"]["arguments"]


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_call_that_the_limit_cut_off_is_left_out(size: int) -> None:
    use = tool_use(request(tools=[TOOL], tool_choice="required"))
    text = '[{"name": "get_weather", "arguments": {"city": "Rome"}}, {"name": "get_weather", "argu'
    content, calls = read(reader(use, FORMATS["hermes"].parse), text, size)
    assert content == "" and len(calls) == 1
