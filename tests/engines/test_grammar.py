"""Schemas as llguidance follows them: what is refused in full, what is an annotation, what fails on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from language import follows
from transformers import AutoTokenizer

from swift.core.errors import SwiftError
from swift.engines.base import Constraint, Request, SamplingParams
from swift.engines.grammar import Grammar, Grammars
from swift.engines.json_schema import FORMATS
from swift.engines.sampler import Pick
from swift.engines.sequence import Sequence

LONG = {"type": "array", "items": {"const": 1}, "minItems": 20000}
"""More than the parser of llguidance can hold."""


@pytest.fixture(scope="module")
def tokenizer(smollm2_tokenizer_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(smollm2_tokenizer_dir)


@pytest.fixture(scope="module")
def grammars(tokenizer: Any) -> Grammars:
    return Grammars(tokenizer)


def of_schema(grammars: Grammars, schema: Any) -> Grammar:
    return grammars.make(Constraint("json", json.dumps(schema)))


@pytest.mark.parametrize("form", ["path", "binary", "color-hex", "json-string", "password", "int32", "regex", "iri"])
def test_an_unknown_format_is_an_annotation(grammars, tokenizer, form: str) -> None:
    schema = {"type": "object", "properties": {"format": {"type": "string", "format": form}}, "required": ["format"]}
    assert form not in FORMATS
    assert follows(of_schema(grammars, schema), tokenizer, '{"format":"any text"}')
    assert not follows(of_schema(grammars, schema), tokenizer, '{"format":1}')


def test_what_stands_in_values_is_no_keyword(grammars, tokenizer) -> None:
    schema = {"const": {"format": "path", "type": 3}}
    assert follows(of_schema(grammars, schema), tokenizer, '{"format":"path","type":3}')


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_known_formats_are_held(grammars, tokenizer, form: str) -> None:
    assert not follows(of_schema(grammars, {"type": "string", "format": form}), tokenizer, '"no such thing!"')


MEMBER = {"type": "object", "properties": {"a": {"const": 1}}, "additionalProperties": {"type": "boolean"}}


@pytest.mark.parametrize(
    ("schema", "text", "holds"),
    [
        ({"format": "date"}, '"2024-02-29"', True),
        ({"format": "date"}, '"2000-02-29"', True),
        ({"format": "date"}, '"2023-02-29"', False),
        ({"format": "date"}, '"1900-02-29"', False),
        ({"format": "date"}, '"0000-01-01"', False),
        ({"format": "date", "allOf": [{"pattern": "^19"}]}, '"1999-02-28"', True),
        ({"format": "date", "allOf": [{"pattern": "^19"}]}, '"2024-02-28"', False),
        ({"format": "date-time"}, '"2024-12-31T23:59:59Z"', True),
        ({"format": "date-time"}, '"2024-12-31T12:59:60Z"', False),
        ({"format": "time"}, '"12:59:60Z"', False),
        ({"format": "email"}, f'"{"a" * 64}@b.org"', True),
        ({"format": "email"}, f'"{"a" * 65}@b.org"', False),
        (MEMBER, '{"a":1,"b":true}', True),
        (MEMBER, '{"a":1,"a":true}', False),
        (MEMBER, r'{"\u0061":true}', False),
        ({"type": "object", "minProperties": 1}, '{"a":1}', True),
    ],
)
def test_what_validators_see_is_held(grammars, tokenizer, schema: dict[str, Any], text: str, holds: bool) -> None:
    assert follows(of_schema(grammars, {"type": "string", **schema}), tokenizer, text) == holds


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "nonsense"}, "Invalid type: nonsense"),
        ({"type": "string", "pattern": "(a:b"}, "(a:b error: unclosed group"),
        ({"type": "string", "pattern": "(?<!x)y: z"}, "look-around, including look-ahead and look-behind, is not supp"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf constraints are not supported"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "object", "required": ["a"], "minProperties": 3}, "nothing keeps a key from coming twice"),
        (LONG, "Too many items"),
        (False, "Unsatisfiable"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused_in_full(grammars, schema: Any, reason: str) -> None:
    with pytest.raises(SwiftError) as refused:
        of_schema(grammars, schema)
    assert reason in refused.value.why and "<state>" not in refused.value.why


def test_exactly_one_is_taken_where_it_can_be_told(grammars, tokenizer) -> None:
    kinds = [{"type": "object", "properties": {"kind": {"const": k}}, "required": ["kind"]} for k in ("a", "b")]
    assert follows(of_schema(grammars, {"oneOf": kinds}), tokenizer, '{"kind":"b"}')
    assert follows(of_schema(grammars, True), tokenizer, "[1]")


@pytest.mark.parametrize("constraint", [Constraint("regex", "(a"), Constraint("lark", "start: nothing")])
def test_other_constraints_are_refused_alike(grammars, constraint: Constraint) -> None:
    with pytest.raises(SwiftError, match="cannot be used"):
        grammars.make(constraint)


def test_a_grammar_that_fails_on_the_way_is_an_error_and_no_end(grammars, tokenizer) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": LONG}}
    request = Request(id="x", prompt_ids=(1,), sampling=SamplingParams(max_tokens=40))
    grammar = of_schema(grammars, {**schema, "required": ["a", "b"], "additionalProperties": False})
    sequence = Sequence(request, 0, tokenizer, frozenset(), 40, grammar)
    deltas = []
    for token in tokenizer('{"a":7,"b":[1,1,1', add_special_tokens=False)["input_ids"]:
        sequence.picker.adjust(torch.zeros(len(tokenizer)))
        deltas.append(sequence.take(Pick(token)))
        if sequence.finish_reason:
            break
    assert deltas[-1] is not None and deltas[-1].finish_reason == "error"
    assert "can no longer be held to its grammar" in (deltas[-1].error or "")
