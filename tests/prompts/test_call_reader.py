"""Calls read piece by piece: what is text flows on at once, and the pieces make the same whole however they are cut."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swift.prompts import tool_calls
from swift.prompts.call_reader import CallReader, read_calls
from swift.prompts.tool_calls import CallSyntax
from swift.prompts.types import ToolCall

SYNTAXES = {name: value for name, value in vars(tool_calls).items() if isinstance(value, CallSyntax)}
NAMES = ("weather", "add")
PROSE = (
    "Here is code, {not a call}:\n```python\ndef f(a):\n    return {'a': 1}  # Actions: none\n```\nand C#:\ntry\n{\n"
    '    run();\n}\nand some JSON: {"name": "Anna", "tags": ["a", "b"]}\n<tool>x</tool> [1, 2] <|x|> 3 < 4\n'
    '{"city": "Rome", "arguments": 3}\nAn Action movie. action films\nThe add function.\nweather\nis fine.'
)
ARGUMENTS = [
    '{"city": "Rome"}',
    '{"a": "}</tool_call>\\n", "b": [{"c": "\\\\\\""}]}',
    "{}",
    '{"a": {"b": {"c": null}}}',
]


def fed(reader: CallReader, pieces: list[str]) -> tuple[str, list[tuple[str, str]]]:
    """Everything a reader gives for the pieces: content, and (name, arguments) of each call."""
    content, calls = "", []
    for at, piece in enumerate([*pieces, ""]):
        text, more = reader.feed(piece, last=at == len(pieces))
        content += text
        for each in more:
            if each.name is not None:
                assert each.index == len(calls)
                calls.append((each.name, ""))
            calls[each.index] = (calls[each.index][0], calls[each.index][1] + each.arguments)
    return content, calls


@pytest.mark.parametrize("name", sorted(SYNTAXES))
@pytest.mark.parametrize(
    "opened", [PROSE, '{"answer": {"name": "Anna"}}' + PROSE, '{"name": "Anna", "age": 3}' + PROSE]
)
def test_prose_code_and_json_stream_token_by_token(name: str, opened: str) -> None:
    reader = CallReader(SYNTAXES[name], NAMES)
    given_out = fed_in = ""
    for token in re.findall(r"\s?\w+|\s|.", opened):
        content, calls = reader.feed(token)
        fed_in, given_out = fed_in + token, given_out + content
        assert not calls
        assert fed_in.startswith(given_out)
        held = fed_in[len(given_out) :]
        # Only what may yet become a mark is held: less than a line.
        assert len(held) <= 16, (token, held)
    assert given_out + reader.feed("", last=True)[0] == opened


@pytest.mark.parametrize("name", [name for name, syntax in SYNTAXES.items() if syntax.example])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_the_example_of_a_syntax_is_a_call_in_it(name: str, size: int, arguments: str) -> None:
    syntax = SYNTAXES[name]
    calls = [("weather", arguments), ("add", "{}")][: 2 if syntax.joiner else 1]
    text = (syntax.joiner or "").join(syntax.example.replace("NAME", n).replace("ARGUMENTS", a) for n, a in calls)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert fed(CallReader(syntax, NAMES), pieces) == ("", calls)


@pytest.mark.parametrize("name", [name for name, syntax in SYNTAXES.items() if syntax.example])
def test_a_call_streams_its_name_first_and_then_its_arguments(name: str) -> None:
    text = SYNTAXES[name].example.replace("NAME", "weather").replace("ARGUMENTS", '{"city": "Rome", "days": 3}')
    reader = CallReader(SYNTAXES[name], NAMES)
    pieces = [piece for character in text for piece in reader.feed(character)[1]]
    assert (pieces[0].name, pieces[0].arguments) == ("weather", "")
    assert max(len(piece.arguments) for piece in pieces) == 1, "each character as it comes"


FRAGMENTS = [
    "Action: weather\n", "Action Input: ", "\nObservation:", "\nThought: so\n", "```json\n", "```", "weather\n",
    '{"city": "Rome"}', '{"name": "weather", "arguments": ', '{"name": "add", "parameters": {"a": 1}}', "}", "{",
    "[", "]",
    '{"arguments": {"a": 1}, "name": "add"}', '{"name": "add"}', '{"name": 3}', '"', "\\", "\n", " ", ", ", "; ", "<",
    "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "add[ARGS]", "<|assistant|>", "<|python_tag|>", "text",
    "<think>", "</think>",
    "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "function<｜tool▁sep｜>", "weather<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<|channel|>analysis<|message|>", "<|end|>", "<|channel|>final<|message|>",
    "to=functions.add <|message|>", "<|call|>",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(SYNTAXES)),
    fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=8),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=6),
)
def test_the_pieces_make_the_same_whole_however_they_are_cut(name: str, fragments: list[str], cuts: list[int]) -> None:
    text, pieces, at = "".join(fragments), [], 0
    while at < len(text):
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(text[at : at + size])
        at += size
    whole = fed(CallReader(SYNTAXES[name], NAMES), [text])
    assert fed(CallReader(SYNTAXES[name], NAMES), pieces) == whole
    if not whole[1] and not SYNTAXES[name].left_out:
        assert whole[0] == text


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("HERMES", '<tool_call>{"name": "weather", "arguments": {"city": "Ro', ("weather", '{"city": "Ro')),
        ("HERMES", '<tool_call>\n{"name": "weather", "argum', ("weather", "")),
        ("LIST", '[{"name": "weather", "arguments": {"city"', ("weather", '{"city"')),
        ("ACTIONS", 'Action: weather\nAction Input: {"city": "Ro', ("weather", '{"city": "Ro')),
        ("LLAMA3", '{"name": "weather", "parameters": {"ci', ("weather", '{"ci')),
        ("GLM4", 'weather\n{"ci', ("weather", '{"ci')),
        ("MISTRAL", '[TOOL_CALLS]weather[ARGS]{"ci', ("weather", '{"ci')),
    ],
)
def test_a_call_that_is_cut_off_gives_what_there_is(name: str, text: str, expected: tuple[str, str]) -> None:
    for pieces in ([text], list(text)):
        assert fed(CallReader(SYNTAXES[name], NAMES), pieces) == ("", [expected])


def test_what_is_thought_is_no_call() -> None:
    call = '<tool_call>{"name": "add", "arguments": {}}</tool_call>'
    text = f"<think>I could {call}</think>\n\nI do: {call}"
    for pieces in ([text], list(text)):
        content, calls = fed(CallReader(tool_calls.HERMES), pieces)
        assert (content, calls) == (f"<think>I could {call}</think>\n\nI do: ", [("add", "{}")])
    opened = CallReader(tool_calls.LLAMA3, NAMES, thinking=True)
    assert fed(opened, ['hm {"name": "add"} </think>', '{"name": "add", "parameters": {}}'])[1] == [("add", "{}")]


def test_only_tools_that_exist_are_called_where_the_marks_may_stand_in_any_text() -> None:
    for syntax, text in ((tool_calls.LLAMA3, '{"name": "Anna", "parameters": {"a": 1}}'), (tool_calls.GLM4, "try\n{}")):
        assert read_calls(text, syntax, NAMES) == (text, ())
    assert read_calls("try\n{}", tool_calls.GLM4)[1] == (ToolCall("try", "{}"),)


def test_arguments_as_json_text_are_unpacked() -> None:
    text = '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>'
    (call,) = read_calls(text, tool_calls.HERMES)[1]
    assert json.loads(call.arguments) == {"a": 1}
