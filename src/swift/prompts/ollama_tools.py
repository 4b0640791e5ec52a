"""How a format speaks of tools and calls, as Go template text.

It is learned from what the format writes for two tools with names that nobody has. Go writes JSON without blanks, so
the text is the same up to those.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from swift.prompts.tool_formats import ToolFormat
from swift.prompts.types import ToolCall

_MARK = re.compile(r"\x00(\d)(.*?)\x00", re.DOTALL)


def described(fmt: ToolFormat) -> str | None:
    """The description of `$.Tools`; None where it is not a list of them with text between."""
    return _looped(fmt.describe([_tool(1), _tool(2)]), _forms_of_tool, "$.Tools")


def called(fmt: ToolFormat) -> str | None:
    """The text of `.ToolCalls`; None where it is not a list of them with text between."""
    calls = [ToolCall(f"§call{number}§", json.dumps({f"§argument{number}§": 0})) for number in (1, 2)]
    return _looped(fmt.write(calls), _forms_of_call, ".ToolCalls")


def _tool(number: int) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {f"§parameter{number}§": {"type": "string"}}}
    function = {"name": f"§tool{number}§", "description": f"§says{number}§", "parameters": parameters}
    return {"type": "function", "function": function}


def _forms_of_tool(number: int) -> Mapping[str, str]:
    """What a tool may be written as, whole before its parts -> the field of Ollama."""
    tool = _tool(number)
    function = tool["function"]
    whole = {_json(tool): "{{ $each }}", _json(function): "{{ $each.Function }}"}
    indented = {json.dumps(function, ensure_ascii=False, indent=4): "{{ $each.Function }}"}
    parts = {
        _json(function["parameters"]): "Parameters",
        function["name"]: "Name",
        function["description"]: "Description",
    }
    return {**whole, **indented, **{text: f"{{{{ $each.Function.{field} }}}}" for text, field in parts.items()}}


def _forms_of_call(number: int) -> Mapping[str, str]:
    name, arguments = f"§call{number}§", json.dumps({f"§argument{number}§": 0})
    quoted = {json.dumps(name): '"{{ $each.Function.Name }}"'}  # names of functions have nothing to escape
    return {**quoted, name: "{{ $each.Function.Name }}", arguments: "{{ $each.Function.Arguments }}"}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _looped(text: str, forms: Any, source: str) -> str | None:
    """`text` about two things as a loop over any number of them."""
    for number in (1, 2):
        for written, field in forms(number).items():
            text = text.replace(written, f"\x00{number}{field}\x00")
    # Literals at even places; between them the number and the field of a mark.
    parts = _MARK.split(text)
    literals, numbers, fields = parts[0::3], parts[1::3], parts[2::3]
    out, at = literals[0], 0
    while at < len(numbers):
        size = next((i for i, number in enumerate(numbers[at:]) if number == "2"), 0)
        first, second = slice(at, at + size), slice(at + size, at + 2 * size)
        between = slice(at + 1, at + size), slice(at + size + 1, at + 2 * size)
        same = fields[first] == fields[second] and literals[between[0]] == literals[between[1]]
        if not size or not same or set(numbers[first]) != {"1"} or set(numbers[second]) != {"2"}:
            return None
        unit = fields[at] + "".join(
            a + b for a, b in zip(literals[between[0]], fields[at + 1 : at + size], strict=True)
        )
        gap = literals[at + size]
        out += f"{{{{ range $number, $each := {source} }}}}{{{{ if $number }}}}{gap}{{{{ end }}}}{unit}{{{{ end }}}}"
        at += 2 * size
        out += literals[at]
    return None if "§" in out else out
