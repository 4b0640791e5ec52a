"""What answers with tools are held to: the language of each tool's own schema, whatever stands beside it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.engines.language import follows

from swift.engines.base import Constraint
from swift.engines.grammar import Grammars
from swift.prompts import tool_calls
from swift.prompts.call_reader import read_calls
from swift.prompts.tool_calls import CallSyntax
from swift.serving.constraints import calls_or_text, calls_schema
from swift.serving.tools import ToolUse

ITEM = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"], "additionalProperties": False}
WORD = {"type": "object", "properties": {"id": {"enum": ["a"]}}, "required": ["id"], "additionalProperties": False}


def taking(reference: str, **others: Any) -> dict[str, Any]:
    """A schema of arguments with one member that is a reference."""
    return {
        "type": "object",
        "properties": {"item": {"$ref": reference}},
        "required": ["item"],
        "additionalProperties": False,
        **others,
    }


SCHEMAS: dict[str, tuple[dict[str, Any], str, str]] = {
    "number": (taking("#/$defs/Item", **{"$defs": {"Item": ITEM}}), '{"item":{"id":3}}', '{"item":{"id":"a"}}'),
    "word": (taking("#/$defs/Item", **{"$defs": {"Item": WORD}}), '{"item":{"id":"a"}}', '{"item":{"id":3}}'),
    "older": (taking("#/definitions/Item", definitions={"Item": WORD}), '{"item":{"id":"a"}}', '{"item":{"id":3}}'),
    "anchor": (taking("#it", **{"$defs": {"x/y z": {**WORD, "$anchor": "it"}}}), '{"item":{"id":"a"}}', '{"item":{}}'),
    "named": (
        taking(
            "http://x.y/z#/$defs/I",
            **{"$id": "http://x.y/z", "$schema": "http://json-schema.org/draft-07/schema#", "$defs": {"I": WORD}},
        ),
        '{"item":{"id":"a"}}',
        '{"item":{"id":3}}',
    ),
    "itself": (
        {"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": False},
        '{"next":{"next":{}}}',
        '{"next":[]}',
    ),
    "sibling": (
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/properties/a"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
        '{"a":1,"b":2}',
        '{"a":1,"b":"c"}',
    ),
    "ref in names": (
        {
            "type": "object",
            "properties": {"$ref": {"const": {"$ref": "#/x"}}},
            "required": ["$ref"],
            "additionalProperties": False,
        },
        '{"$ref":{"$ref":"#/x"}}',
        '{"$ref":{"$ref":"#/$defs/x"}}',
    ),
}


@pytest.fixture(scope="module")
def grammars(tokenizer) -> Grammars:
    return Grammars(tokenizer)


@pytest.fixture(scope="module")
def any_call(grammars: Grammars):
    """A fresh grammar of all tools at once, for each text."""
    schema = calls_schema({name: schema for name, (schema, _, _) in SCHEMAS.items()}, parallel=True)
    return lambda: grammars.make(Constraint("json", json.dumps(schema)))


@pytest.mark.parametrize("name", SCHEMAS)
def test_required_calls_speak_the_language_of_the_named_choice(grammars, any_call, tokenizer, name: str) -> None:
    schema, good, bad = SCHEMAS[name]
    for arguments, right in ((good, True), (bad, False)):
        alone = grammars.make(Constraint("json", json.dumps(schema)))
        assert follows(alone, tokenizer, arguments) == right
        call = f'{{"name":{json.dumps(name)},"arguments":{arguments}}}'
        assert follows(any_call(), tokenizer, f"[{call}]") == right
        assert follows(any_call(), tokenizer, f"[{call},{call}]") == right


def test_not_parallel_is_one_call(grammars, tokenizer) -> None:
    schema = json.dumps(calls_schema({"f": {"type": "object"}}, parallel=False))
    call = '{"name":"f","arguments":{}}'
    assert follows(grammars.make(Constraint("json", schema)), tokenizer, f"[{call}]")
    assert not follows(grammars.make(Constraint("json", schema)), tokenizer, f"[{call},{call}]")


def test_arguments_are_an_object_whatever_the_parameters_say(grammars, tokenizer) -> None:
    tools = [
        {"type": "function", "function": {"name": "none"}},
        {"type": "function", "function": {"name": "free", "parameters": {}}},
        {"type": "function", "function": {"name": "typeless", "parameters": {"properties": {"a": {"const": 1}}}}},
    ]
    arguments = ToolUse("required", tuple(tools)).arguments
    for name, good, bad in (("none", "{}", '{"a":1}'), ("free", '{"a":1}', "[1]"), ("typeless", '{"a":1}', '"text"')):
        text = json.dumps(arguments[name])
        assert follows(grammars.make(Constraint("json", text)), tokenizer, good)
        assert not follows(grammars.make(Constraint("json", text)), tokenizer, bad)


SYNTAXES = [each for each in vars(tool_calls).values() if isinstance(each, CallSyntax) and each.example]


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.example[:12])
def test_a_schema_beside_tools_is_a_call_or_text_that_holds_it(grammars, tokenizer, syntax: CallSyntax) -> None:
    tools = tuple(
        {"type": "function", "function": {"name": name, "parameters": SCHEMAS[name][0]}} for name in ("number", "word")
    )
    held = calls_or_text(taking("#/$defs/Item", **{"$defs": {"Item": ITEM}}), ToolUse("auto", tools), syntax)

    def allows(text: str) -> bool:
        return follows(grammars.make(held), tokenizer, text)

    assert allows('{"item":{"id":3}}')
    list_of_words = calls_or_text({"type": "array", "items": {"type": "string"}}, ToolUse("auto", tools), syntax)
    assert follows(grammars.make(list_of_words), tokenizer, '["a","b"]')
    assert not allows("Free text")
    assert not allows('{"item":{"id":"a"}}')
    for name in ("number", "word"):
        _, good, bad = SCHEMAS[name]
        call = syntax.example.replace("NAME", name).replace("ARGUMENTS", good)
        assert allows(call)
        assert not allows(syntax.example.replace("NAME", name).replace("ARGUMENTS", bad))
        assert [each.name for each in read_calls(call, syntax, ("number", "word"))[1]] == [name]
        if syntax.joiner:
            assert allows(f"{call}{syntax.joiner}{call}")
        if syntax.lead:
            assert allows(f"Thought: I look it up.\n{call}")
