"""Tool calls: what `tool_choice` holds the answer to, and how its text becomes content and calls, piece by piece."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from swift.engines.base import Constraint
from swift.prompts.types import Message
from swift.serving.errors import ApiError
from swift.serving.schema import CallDelta, ChatRequest, NamedTool


@dataclass(frozen=True)
class ToolUse:
    """How an answer may use tools."""

    mode: Literal["none", "auto", "required", "named"] = "none"
    tools: tuple[dict[str, Any], ...] = ()
    """What the prompt tells the model, in OpenAI's form."""
    name: str | None = None
    """The one function that must be called."""
    grammar: Constraint | None = None
    parallel: bool = True


def tool_use(body: ChatRequest) -> ToolUse:
    """What `tools`, `tool_choice` and `parallel_tool_calls` ask for. Raises ApiError where they contradict."""
    choice = body.tool_choice
    if not body.tools:
        if choice in (None, "none", "auto"):
            return ToolUse()
        raise ApiError(400, "`tool_choice` needs `tools`.", param="tool_choice")
    if choice == "none":
        return ToolUse()
    tools = tuple(tool.model_dump(exclude_none=True) for tool in body.tools)
    schemas = {tool.function.name: tool.function.parameters or {"type": "object"} for tool in body.tools}
    if len(schemas) < len(tools):
        raise ApiError(400, "Two tools have the same name.", param="tools")
    parallel = body.parallel_tool_calls is not False
    if choice in (None, "auto"):
        return ToolUse("auto", tools, parallel=parallel)
    if isinstance(choice, NamedTool):
        name = choice.function.name
        if name not in schemas:
            given = ", ".join(schemas)
            raise ApiError(400, f"`{name}` is not one of the tools ({given}).", param="tool_choice.function.name")
        return ToolUse("named", tools, name, Constraint("json", json.dumps(schemas[name])), parallel)
    return ToolUse("required", tools, None, Constraint("json", json.dumps(_any_calls(schemas, parallel))), parallel)


def _any_calls(schemas: dict[str, Any], parallel: bool) -> dict[str, Any]:
    """The schema of a list of at least one call. Definitions of each tool move to the root, where `$ref` finds them."""
    calls, definitions = [], {}
    for name, schema in schemas.items():
        arguments = dict(schema)
        for key in ("$defs", "definitions"):
            definitions.update({(key, inner): text for inner, text in arguments.pop(key, {}).items()})
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": name}, "arguments": arguments},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    whole: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"anyOf": calls}}
    if not parallel:
        whole["maxItems"] = 1
    for (key, inner), schema in definitions.items():
        whole.setdefault(key, {})[inner] = schema
    return whole


class Reader(Protocol):
    """Takes an answer's text as it comes and gives out content and calls that are sure."""

    def feed(self, text: str, *, last: bool) -> tuple[str, list[CallDelta]]:
        """More text; `last` says that no more comes."""
        ...


class TextReader:
    """An answer without tools: everything is content."""

    def feed(self, text: str, *, last: bool) -> tuple[str, list[CallDelta]]:
        """The text as it is."""
        return text, []


class NamedReader:
    """An answer held to one function's schema: everything is its arguments."""

    def __init__(self, name: str):
        self._name = name
        self._begun = False

    def feed(self, text: str, *, last: bool) -> tuple[str, list[CallDelta]]:
        """The next piece of the arguments."""
        if self._begun:
            return "", [{"index": 0, "function": {"arguments": text}}] if text else []
        if not text:
            return "", []
        self._begun = True
        return "", [_call(0, self._name, text)]


class ListReader:
    """An answer held to a JSON list of calls: each is given out as soon as its object closes."""

    def __init__(self) -> None:
        self._rest = ""
        self._given = 0
        self._decoder = json.JSONDecoder()

    def feed(self, text: str, *, last: bool) -> tuple[str, list[CallDelta]]:
        """The calls that `text` completes. A call that the token limit cut off is left out."""
        self._rest += text
        calls: list[CallDelta] = []
        while (start := self._rest.find("{")) >= 0:
            try:
                call, end = self._decoder.raw_decode(self._rest, start)
            except json.JSONDecodeError:
                break
            calls.append(_call(self._given, call["name"], json.dumps(call["arguments"], ensure_ascii=False)))
            self._given += 1
            self._rest = self._rest[end:]
        return "", calls


class FreeReader:
    """An answer that may hold calls in the format of the prompt.

    Text is given out until a mark that may open a call; from there on it is kept until the end, when the format's own
    parser says what it was.
    """

    def __init__(self, marks: tuple[str, ...], parse: Callable[[str], Message], *, parallel: bool):
        self._marks = marks
        self._parse = parse
        self._parallel = parallel
        self._text = ""
        self._given = 0

    def feed(self, text: str, *, last: bool) -> tuple[str, list[CallDelta]]:
        """Content that cannot be part of a call; at the end the calls, or the kept text when there are none."""
        self._text += text
        if not last:
            end = max(self._safe_end(), self._given)
            content, self._given = self._text[self._given : end], end
            return content, []
        message = self._parse(self._text)
        found = message.tool_calls if self._parallel else message.tool_calls[:1]
        calls = [_call(i, call.name, call.arguments) for i, call in enumerate(found)]
        if not calls:
            return self._text[self._given :], []
        # What the parser leaves as content was given out already, save for what stood between a mark and the end.
        return message.content[self._given :], calls

    def _safe_end(self) -> int:
        """Where the first mark, or a possible beginning of one at the very end, stands."""
        begin = max(0, self._given - max(map(len, self._marks), default=0))
        found = [at for at in (self._text.find(mark, begin) for mark in self._marks) if at >= 0]
        if found:
            return min(found)
        longest = max(map(len, self._marks), default=0)
        for size in range(min(longest - 1, len(self._text)), 0, -1):
            if any(mark.startswith(self._text[-size:]) for mark in self._marks):
                return len(self._text) - size
        return len(self._text)


CALL_MARKS = ("Action", "action", "ACTION", "<tool_call>", "<｜tool", "<|", "[TOOL_CALLS]", "{")
"""What a call may begin with, in any of the formats that `swift.prompts` reads; a tool's own name is one more."""


def reader(use: ToolUse, parse: Callable[[str], Message]) -> Reader:
    """The reader for an answer under `use`; `parse` finds the calls in a whole answer."""
    if use.mode == "named" and use.name is not None:
        return NamedReader(use.name)
    if use.mode == "required":
        return ListReader()
    if use.mode == "auto":
        names = tuple(tool["function"]["name"] for tool in use.tools)
        return FreeReader(CALL_MARKS + names, parse, parallel=use.parallel)
    return TextReader()


def _call(index: int, name: str, arguments: str) -> CallDelta:
    return {
        "index": index,
        "id": f"call_{uuid.uuid4().hex[:24]}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def joined(deltas: list[CallDelta]) -> list[CallDelta]:
    """The whole calls of a streamed answer, without the index that only a stream needs."""
    calls: dict[int, CallDelta] = {}
    for delta in deltas:
        index = delta.get("index", 0)
        if index not in calls:
            calls[index] = {key: value for key, value in delta.items() if key != "index"}  # type: ignore[assignment]
            continue
        function = calls[index].get("function", {})
        function["arguments"] = function.get("arguments", "") + delta.get("function", {}).get("arguments", "")
    return list(calls.values())
