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
    content, (call,) = read(reader(use, FORMATS[name].calls), text, size)
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Rome"}
    assert content.strip() == ("" if name == "glm4" else "I look.")


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize("text", ["No call here.", "An Action movie < 3 { and so on", "Act", "<tool", ""])
def test_text_without_a_call_comes_through_whole(text: str, size: int) -> None:
    use = tool_use(request(tools=[TOOL]))
    assert read(reader(use, FORMATS["hermes"].calls), text, size) == (text, [])


def test_text_is_not_held_back_without_need() -> None:
    calls = reader(tool_use(request(tools=[TOOL])), FORMATS["react_en"].calls)
    assert calls.feed("Let me think about it.\n", last=False) == ("Let me think about it.", [])
    assert calls.feed("Act", last=False) == ("", [])
    assert calls.feed("ing is hard", last=False) == ("\nActing is hard", [])


def test_one_call_only_when_calls_may_not_be_parallel() -> None:
    use = tool_use(request(tools=[TOOL], parallel_tool_calls=False))
    assert len(read(reader(use, FORMATS["hermes"].calls), HERMES + HERMES[8:], 1000)[1]) == 1


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_call_that_the_limit_cut_off_gives_what_there_is(size: int) -> None:
    use = tool_use(request(tools=[TOOL], tool_choice="required"))
    text = '[{"name": "get_weather", "arguments": {"city": "Rome"}}, {"name": "get_weather", "arguments": {"ci'
    content, calls = read(reader(use, FORMATS["hermes"].calls), text, size)
    assert content == "" and [call["function"]["arguments"] for call in calls] == ['{"city": "Rome"}', '{"ci']


@pytest.mark.parametrize(
    "cut", ["[", '[{"na', '[{"name": "get_weather", "arguments": {}},{"', '[{"name": "get_weather", "arguments": {}}']
)
def test_a_list_of_calls_that_the_limit_cut_off_is_no_content(cut: str) -> None:
    use = tool_use(request(tools=[TOOL], tool_choice="required"))
    content, calls = read(reader(use, None), cut, 1)
    assert content == "" and [call["function"]["arguments"] for call in calls] == ["{}"] * cut.count("{}")


def test_allowed_tools_are_the_only_ones() -> None:
    other = {"type": "function", "function": {"name": "other"}}
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "other"}}]}
    use = tool_use(request(tools=[TOOL, other], tool_choice={"type": "allowed_tools", "allowed_tools": allowed}))
    assert (use.mode, use.names) == ("required", ("other",))


@pytest.mark.parametrize(
    ("choice", "mode"), [(None, "auto"), ("auto", "auto"), ("none", "none"), ({"name": "get_weather"}, "named")]
)
def test_functions_are_tools_in_an_older_form(choice, mode: str) -> None:
    use = tool_use(request(functions=[TOOL["function"]], function_call=choice))
    assert use.mode == mode
    if mode != "none":
        assert use.tools == (TOOL,) and use.older


@pytest.mark.parametrize(
    ("parameters", "closed"),
    [
        (None, True),
        ({"properties": {"city": {"type": "string"}}, "required": ["city"], "description": "where"}, True),
        ({"type": "object"}, False),
        ({"properties": {"city": {}}, "additionalProperties": {"type": "integer"}}, False),
        ({"properties": {"city": {}}, "patternProperties": {"^x_": {}}}, False),
        ({"properties": {"city": {}}, "anyOf": [{"required": ["city"]}, {"properties": {"zip": {}}}]}, False),
    ],
)
def test_a_call_names_declared_arguments_only_where_nothing_says_more(parameters: dict | None, closed: bool) -> None:
    function = {"name": "get_weather", **({} if parameters is None else {"parameters": parameters})}
    use = tool_use(request(tools=[{"type": "function", "function": function}], tool_choice="required"))
    schema = use.arguments["get_weather"]
    assert schema["type"] == "object"
    assert (schema.get("additionalProperties") is False) == closed
