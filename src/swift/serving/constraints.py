"""What an answer is held to: `response_format`, vLLM's fields for the same, and the schemas of tools."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from swift.engines.base import JSON_OBJECT, Constraint
from swift.engines.json_schema import embedded, guided_schema, pointer_part
from swift.prompts.tool_calls import CallSyntax
from swift.serving.errors import ApiError
from swift.serving.schema import Generation
from swift.serving.tools import ToolUse

STRUCTURED = ("json", "regex", "choice", "json_object")
"""The keys of vLLM's `structured_outputs` that are done here."""


def constraint(
    body: Generation, use: ToolUse | None = None, syntax: CallSyntax | None = None
) -> tuple[Constraint | None, str | None]:
    """What the answer to `body` is held to, and the field that asks for it; `syntax` is how its prompt writes calls.

    Raises ApiError for fields that contradict each other or cannot be done.
    """
    wanted, field = _of_text(body)
    if use is None or use.mode == "none" or (use.mode == "auto" and wanted is None):
        return wanted, field
    if use.mode == "named" and use.name is not None:
        return Constraint("json", json.dumps(use.arguments[use.name])), "tools"
    if use.mode == "required":
        return Constraint("json", json.dumps(calls_schema(use.arguments, use.parallel))), "tools"
    if wanted is None or wanted.kind != "json" or syntax is None or syntax.example is None:
        message = f'`{field}` and `tools` cannot be used together here; set `tool_choice` to "none" or "required".'
        raise ApiError(400, message, param=field)
    return calls_or_text(json.loads(wanted.text), use, syntax), field


def _of_text(body: Generation) -> tuple[Constraint | None, str | None]:
    """What the text is held to, whether it is said in OpenAI's way or in vLLM's."""
    given = [
        (Constraint("json", _json_text(body.guided_json, "guided_json")) if body.guided_json else None, "guided_json"),
        (Constraint("regex", body.guided_regex) if body.guided_regex else None, "guided_regex"),
        (Constraint("choice", json.dumps(body.guided_choice)) if body.guided_choice else None, "guided_choice"),
        (_structured(body.structured_outputs or {}), "structured_outputs"),
        (_response_format(body), "response_format"),
    ]
    wanted = [(each, field) for each, field in given if each is not None]
    if len(wanted) > 1:
        raise ApiError(400, f"`{wanted[0][1]}` and `{wanted[1][1]}` contradict each other.", param=wanted[0][1])
    return wanted[0] if wanted else (None, None)


def _response_format(body: Generation) -> Constraint | None:
    form = body.response_format
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return JSON_OBJECT if form.inline_schema is None else Constraint("json", json.dumps(form.inline_schema))
    if form.json_schema is None or form.json_schema.json_schema is None:
        where = "response_format.json_schema.schema"
        raise ApiError(400, f"`{where}` is missing.", param=where)
    return Constraint("json", json.dumps(form.json_schema.json_schema))


def _structured(given: Mapping[str, Any]) -> Constraint | None:
    """vLLM's `structured_outputs`, the newer name of its `guided_` fields."""
    constraints = {key: value for key, value in given.items() if value}
    if not constraints:
        return None
    key, value = next(iter(constraints.items()))
    where = f"structured_outputs.{key}"
    if key not in STRUCTURED or len(constraints) > 1:
        raise ApiError(400, f"`structured_outputs` takes one of {', '.join(STRUCTURED)}.", param=where)
    if key == "json_object":
        return JSON_OBJECT
    if key == "json":
        return Constraint("json", _json_text(value, where))
    if key == "regex" and isinstance(value, str):
        return Constraint("regex", value)
    if key == "choice" and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return Constraint("choice", json.dumps(value))
    raise ApiError(422, f"`{where}` is of the wrong type.", param=where)


def _json_text(given: Any, where: str) -> str:
    """A schema as JSON text, which vLLM's clients send as well as the object."""
    try:
        schema = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        schema = None
    if not isinstance(schema, dict):
        raise ApiError(400, f"`{where}` is no JSON schema.", param=where)
    return json.dumps(schema)


def calls_schema(arguments: Mapping[str, dict[str, Any]], parallel: bool) -> dict[str, Any]:
    """The schema of a list of at least one call."""
    calls, definitions = _calls(arguments, "arguments")
    limit = {} if parallel else {"maxItems": 1}
    return {"type": "array", "minItems": 1, **limit, "items": {"anyOf": calls}, "$defs": definitions}


def _calls(arguments: Mapping[str, dict[str, Any]], key: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A schema for the call of each tool, with its arguments under `key`, and the definitions they refer to.

    Each tool's schema stands whole among the definitions, so that its own references stay its own.
    """
    pointers = {name: f"#/$defs/{pointer_part(name)}" for name in arguments}
    calls: list[dict[str, Any]] = [
        {
            "type": "object",
            "properties": {"name": {"const": name}, key: {"$ref": pointer}},
            "required": ["name", key],
            "additionalProperties": False,
        }
        for name, pointer in pointers.items()
    ]
    return calls, {name: embedded(arguments[name], pointer) for name, pointer in pointers.items()}


def calls_or_text(schema: dict[str, Any], use: ToolUse, syntax: CallSyntax) -> Constraint:
    """Calls as the prompt's format writes them, or text that holds `schema`."""
    if (syntax.example or "").startswith("{"):
        # A call that is bare JSON, as the text is: one schema for both.
        calls, definitions = _calls(use.arguments, "parameters")
        definitions[""] = embedded(schema, "#/$defs/")
        return Constraint("json", json.dumps({"anyOf": [*calls, {"$ref": "#/$defs/"}], "$defs": definitions}))
    rules = [f"answer: %json {json.dumps(guided_schema(schema))}"]
    names = []
    for number, (name, arguments) in enumerate(use.arguments.items()):
        before, _, behind = (syntax.example or "").partition("ARGUMENTS")
        before = before.replace("NAME", name)
        end = f" {_literal(behind)}" if behind else ""
        # llguidance goes on with the longest text it has begun: the first character is one that JSON may begin with.
        rules.append(f"call_{number}: {_literal(before[:1])} {_literal(before[1:])} arguments_{number}{end}")
        rules.append(f"arguments_{number}: %json {json.dumps(guided_schema(arguments))}")
        names.append(f"call_{number}")
    again = f" ({_literal(syntax.joiner)} call)*" if syntax.joiner and use.parallel else ""
    lead = f"(/{syntax.lead}/)? " if syntax.lead else ""
    rules += [f"call: {' | '.join(names)}", f"calls: {lead}call{again}", "start: answer | calls"]
    return Constraint("lark", "\n".join(reversed(rules)))


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
