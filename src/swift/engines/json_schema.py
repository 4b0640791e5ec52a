"""JSON schemas as llguidance takes them, and a schema inside another with its references kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"})
"""The `format`s that llguidance holds strings to. It refuses others, which JSON Schema calls annotations."""
_LEAP = "(0[48]|[2468][048]|[13579][26])"
_DATE = (
    r"^(([1-9]\d{3}|\d[1-9]\d\d|\d\d[1-9]\d|\d{3}[1-9])-((0[13-9]|1[0-2])-\d\d|02-([01]\d|2[0-8]))"
    rf"|(\d\d{_LEAP}|{_LEAP}00)-02-29)"
)
_EXACT = {
    "date": _DATE,
    "date-time": rf"{_DATE}[Tt]\d\d:\d\d:[0-5]",
    "time": r"^\d\d:\d\d:[0-5]",
    "email": r"^[^@]{1,64}@",
}
"""Closes what llguidance's formats let through: 29 February of a common year, the year 0, second 60, long mailboxes."""
OPTIONS = {
    # Compact, or a small model may write white space until its tokens run out.
    "whitespace_flexible": False,
    # No \\u: a key so written is compared as it stands, and could be one that the schema has other plans for.
    "json_allowed_escapes": 'nrbtf\\"',
}
NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords that hold schemas under names of the user's own."""
VALUES = frozenset({"const", "enum", "default", "examples", "example"})
"""Keywords that hold JSON values and no schemas."""

Schema = Mapping[str, Any]


def guided_schema(schema: Any) -> dict[str, Any]:
    """`schema` with what llguidance should know: annotations left out, and closed what it would let through.

    Raises RecursionError for a schema that is nested too deeply and ValueError for one that cannot be held.
    """
    if isinstance(schema, bool):
        schema = {} if schema else {"enum": []}
    return {**_mapped(schema, _guided), "x-guidance": OPTIONS}


def _guided(node: Schema, _: str) -> dict[str, Any]:
    form = node.get("format") if isinstance(node.get("format"), str) else None
    guided = {key: value for key, value in node.items() if key != "format" or form is None or form in FORMATS}
    if form in _EXACT:
        given = node.get("allOf")
        guided["allOf"] = [*(given if isinstance(given, list) else ()), {"pattern": _EXACT[form]}]
    least, required = node.get("minProperties"), node.get("required")
    if isinstance(least, int) and least > 1 + len(set(required) if isinstance(required, list) else ()):
        raise ValueError("minProperties above the number of required keys: nothing keeps a key from coming twice")
    return guided


def embedded(schema: Schema, pointer: str) -> dict[str, Any]:
    """`schema` as it must read at `pointer` (such as `#/$defs/one`) of another, where its references mean the same.

    Raises RecursionError for a schema that is nested too deeply.
    """
    anchors: dict[str, str] = {}

    def find_anchors(node: Schema, path: str) -> dict[str, Any]:
        if isinstance(node.get("$anchor"), str):
            anchors[node["$anchor"]] = path
        return dict(node)

    _mapped(schema, find_anchors)
    base = schema.get("$id")

    def moved(node: Schema, _: str) -> dict[str, Any]:
        kept = {key: value for key, value in node.items() if key != "$anchor"}
        reference = node.get("$ref")
        if isinstance(reference, str):
            before, _mark, fragment = reference.partition("#")
            if before in ("", base):
                inner = anchors.get(fragment, fragment)
                kept["$ref"] = pointer + inner
        return kept

    return {key: value for key, value in _mapped(schema, moved).items() if key not in ("$id", "$schema")}


def pointer_part(name: str) -> str:
    """A key as it is written inside a JSON pointer in a URI fragment."""
    return quote(name.replace("~", "~0").replace("/", "~1"), safe="~!$&'()*+,;=:@")


def _mapped(schema: Any, change: Callable[[Schema, str], dict[str, Any]], path: str = "") -> Any:
    """The schema with every schema in it changed, the inner ones first; `change` is given each with its pointer."""
    if isinstance(schema, list):
        return [_mapped(each, change, f"{path}/{place}") for place, each in enumerate(schema)]
    if not isinstance(schema, Mapping):
        return schema
    node: dict[str, Any] = {}
    for key, value in schema.items():
        below = f"{path}/{pointer_part(key)}"
        if key in VALUES:
            node[key] = value
        elif key in NAMED and isinstance(value, Mapping):
            node[key] = {name: _mapped(each, change, f"{below}/{pointer_part(name)}") for name, each in value.items()}
        else:
            node[key] = _mapped(value, change, below)
    return change(node, path)
