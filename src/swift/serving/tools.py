"""Tool calls: what a request says of tools, and how an answer's text becomes content and calls, piece by piece."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from swift.prompts.call_reader import CallPiece, CallReader
from swift.prompts.tool_calls import LIST, CallSyntax
from swift.serving.errors import ApiError
from swift.serving.schema import AllowedTools, CallDelta, ChatRequest, Function, NamedFunction, NamedTool

ANNOTATIONS = ("$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "examples", "strict")
Mode = Literal["none", "auto", "required", "named"]


@dataclass(frozen=True)
class ToolUse:
    """How an answer may use tools."""

    mode: Mode = "none"
    tools: tuple[dict[str, Any], ...] = ()
    """What the prompt tells the model, in OpenAI's form."""
    name: str | None = None
    """The one function that must be called."""
    parallel: bool = True
    older: bool = False
    """Asked for as `functions`: the answer has one `function_call`."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the functions."""
        return tuple(tool["function"]["name"] for tool in self.tools)

    @property
    def arguments(self) -> Mapping[str, dict[str, Any]]:
        """The schema of each function's arguments: an object, of no members where a function names no parameters."""
        return {
            tool["function"]["name"]: _closed(tool["function"].get("parameters", {"properties": {}}))
            for tool in self.tools
        }


def _closed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """`parameters` as an object that holds no other arguments than those it names, where nothing in it says more.

    A function fails on an argument that it does not know, and a small model goes on writing new ones to its last token.
    """
    plain = parameters.keys() <= {*ANNOTATIONS, "type", "properties", "required"} and "properties" in parameters
    return {**parameters, "type": "object", **({"additionalProperties": False} if plain else {})}


def tool_use(body: ChatRequest) -> ToolUse:
    """What `tools`, `tool_choice` and `parallel_tool_calls` ask for. Raises ApiError where they contradict."""
    functions, choice, field = _functions(body)
    if not functions:
        if choice in (None, "none", "auto"):
            return ToolUse()
        raise ApiError(400, f"`{field[1]}` needs `{field[0]}`.", param=field[1])
    if choice == "none":
        return ToolUse()
    for at, each in enumerate(functions):
        kind = (each.parameters or {}).get("type", "object")
        if kind != "object" and "object" not in kind:
            where = (
                f"tools[{at}].function.parameters.type" if field[0] == "tools" else f"functions[{at}].parameters.type"
            )
            raise ApiError(400, "The arguments of a function are an object.", param=where)
    tools = {each.name: {"type": "function", "function": each.model_dump(exclude_none=True)} for each in functions}
    if len(tools) < len(functions):
        raise ApiError(400, "Two tools have the same name.", param=field[0])
    mode: Mode = "auto"
    if isinstance(choice, AllowedTools):
        mode = choice.allowed_tools.mode
        names = [tool.function.name for tool in choice.allowed_tools.tools]
        _check_names(names, tools, f"{field[1]}.allowed_tools.tools")
        tools = {name: tools[name] for name in names}
    elif isinstance(choice, NamedTool | NamedFunction):
        name = choice.function.name if isinstance(choice, NamedTool) else choice.name
        where = ".function.name" if isinstance(choice, NamedTool) else ".name"
        _check_names([name], tools, f"{field[1]}{where}")
        return ToolUse("named", tuple(tools.values()), name, older=field[0] == "functions")
    elif choice == "required":
        mode = "required"
    parallel = body.parallel_tool_calls is not False and field[0] == "tools"
    return ToolUse(mode, tuple(tools.values()), None, parallel, older=field[0] == "functions")


def _functions(body: ChatRequest) -> tuple[list[Function], Any, tuple[str, str]]:
    """The functions, the choice among them, and the names of the two fields: the older ones where they were sent."""
    if body.tools is None and body.tool_choice is None and (body.functions is not None or body.function_call):
        return body.functions or [], body.function_call, ("functions", "function_call")
    if body.functions or body.function_call:
        older = "functions" if body.functions else "function_call"
        raise ApiError(400, f"`{older}` is the older form of `tools`; send one of them.", param=older)
    return [tool.function for tool in body.tools or ()], body.tool_choice, ("tools", "tool_choice")


def _check_names(names: list[str], tools: Mapping[str, Any], param: str) -> None:
    for name in names:
        if name not in tools:
            raise ApiError(400, f"`{name}` is not one of the tools ({', '.join(tools)}).", param=param)


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
        deltas = [] if self._begun or not text else [_delta(CallPiece(0, self._name))]
        self._begun = self._begun or bool(text)
        return "", [*deltas, _delta(CallPiece(0, arguments=text))] if text else []


class CallsReader:
    """An answer that may hold calls, written as `syntax` has them. Without `parallel` the first is the only one.

    An answer that has to call has no content: what is left where the token limit cut it off is the list's own text.
    """

    def __init__(self, syntax: CallSyntax, use: ToolUse, *, thinking: bool = False):
        self._reader = CallReader(syntax, use.names, thinking=thinking)
        self._parallel = use.parallel
        self._calls_only = use.mode == "required"

    def feed(self, text: str, *, last: bool) -> tuple[str, list[CallDelta]]:
        """The content and the pieces of calls that `text` makes sure."""
        content, pieces = self._reader.feed(text, last=last)
        deltas = [_delta(piece) for piece in pieces if self._parallel or piece.index == 0]
        return "" if self._calls_only else content, deltas


def reader(use: ToolUse, syntax: CallSyntax | None, *, thinking: bool = False) -> Reader:
    """The reader for an answer under `use`; `syntax` is how its prompt writes calls, `thinking` that it begins so."""
    if use.mode == "named" and use.name is not None:
        return NamedReader(use.name)
    if use.mode == "required":
        return CallsReader(LIST, use)
    if use.mode == "auto" and syntax is not None:
        return CallsReader(syntax, use, thinking=thinking)
    return TextReader()


def _delta(piece: CallPiece) -> CallDelta:
    """A piece as streams have it: the name with the call's id first, then pieces of its arguments."""
    if piece.name is None:
        return {"index": piece.index, "function": {"arguments": piece.arguments}}
    return {
        "index": piece.index,
        "id": f"call_{uuid.uuid4().hex[:24]}",
        "type": "function",
        "function": {"name": piece.name, "arguments": piece.arguments},
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
