"""How tools and calls are written as text for models without a format of their own, and how they are read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from swift.core.errors import SwiftError
from swift.prompts import tool_calls
from swift.prompts.call_reader import read_calls
from swift.prompts.tool_calls import CallSyntax
from swift.prompts.types import Message, ToolCall

Tools = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ToolFormat:
    """One way to speak of tools: the text that describes them, the text of a call, and its reader."""

    name: str
    describe: Callable[[Tools], str]
    write: Callable[[Sequence[ToolCall]], str]
    calls: CallSyntax | None
    """The marks of calls in a reply; None where they are not known, so that all of a reply is text."""
    results: Literal["inside", "turn"]
    """Whether a tool's result continues the answer (after `Observation:`) or is a turn of its own."""
    stop: tuple[str, ...] = ()
    """Texts that end a reply when there are tools: what follows is for the tool to say."""

    def parse(self, text: str) -> Message:
        """The reply as a message. Text without a call stays as it is."""
        if self.calls is None:
            return Message("assistant", text)
        content, calls = read_calls(text, self.calls)
        return Message("assistant", content, tool_calls=calls)

    def end_of_answer(self, messages: Sequence[Message], place: int) -> int:
        """Where the answer at `place` ends: with its results and what follows them, if those stand inside."""
        while messages[place].tool_calls and self.results == "inside":
            place += 1
            while place < len(messages) and messages[place].role == "tool":
                place += 1
            if place == len(messages) or messages[place].role != "assistant":
                return place
        return place + 1

    def interleave(self, answer: Sequence[Message]) -> list[Message]:
        """The answer as messages whose content is the text to render, calls and results in their order."""
        parts: list[Message] = []
        pending: list[ToolCall] = []
        for place, message in enumerate(answer):
            if message.role == "tool":
                # The last result answers all calls that are left: one result may stand for all of them.
                last = place + 1 == len(answer) or answer[place + 1].role != "tool"
                answered = len(pending) if last else 1
                parts += self._call(parts, pending[:answered])
                pending = pending[answered:]
                parts.append(replace(message, content=f" {message.content}\n"))
                continue
            parts += self._call(parts, pending)
            pending = list(message.tool_calls)
            parts.append(replace(message, content=with_reasoning(message), tool_calls=(), reasoning=None))
        return _joined(parts + self._call(parts, pending))

    def _call(self, before: Sequence[Message], pending: Sequence[ToolCall]) -> list[Message]:
        if not pending:
            return []
        last = before[-1]
        gap = "\n" if last.content and not last.content.endswith("\n") else ""
        weight = next(message.weight for message in reversed(before) if message.role == "assistant")
        return [Message("assistant", gap + self.write(pending), weight=weight)]


def _joined(parts: Sequence[Message]) -> list[Message]:
    """Neighbours of the same role as one message, so that rules about the text see it whole."""
    joined: list[Message] = []
    for part in parts:
        if joined and joined[-1].role == part.role:
            joined[-1] = replace(joined[-1], content=joined[-1].content + part.content)
        else:
            joined.append(part)
    return joined


def with_reasoning(message: Message) -> str:
    """The text of an answer with its thinking in front, for templates that have no other place for it."""
    if not message.reasoning:
        return message.content
    return f"<think>\n{message.reasoning}\n</think>\n\n{message.content}"


def in_first_question(messages: Sequence[Message], described: str) -> list[Message]:
    """The description of the tools in front of the first question, for templates without a system text."""
    first = next((place for place, message in enumerate(messages) if message.role == "user"), None)
    if first is None:
        return list(messages)
    first_message = replace(messages[first], content=f"{described}\n\n{messages[first].content}")
    return [*messages[:first], first_message, *messages[first + 1 :]]


def join_observations(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Append a closing tool result to an answer that ends in `Observation:`, so that the answer goes on there."""
    *before, given, result = messages if len(messages) > 1 else (None, *messages, None)
    if given is None or result is None or (given.role, result.role) != ("assistant", "tool"):
        return tuple(messages)
    if not given.content.endswith("Observation:"):
        return tuple(messages)
    return (*(m for m in before if m is not None), replace(given, content=given.content + result.content))


def function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The function of a tool, whether it stands in OpenAI's envelope or alone. Raises SwiftError without a name."""
    inner = tool.get("function", tool)
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise SwiftError(
            "a tool has no function name",
            why=json.dumps(tool, ensure_ascii=False, default=str)[:120],
            next='write {"type": "function", "function": {"name": …, "parameters": …}}',
        )
    return inner


def _names(tools: Tools) -> str:
    return ", ".join(function(tool)["name"] for tool in tools)


def _listed(tools: Tools, label: str) -> str:
    lines = []
    for tool in map(function, tools):
        parameters = json.dumps(tool.get("parameters") or {}, ensure_ascii=False)
        lines.append(f"{tool['name']}: {tool.get('description') or ''} {label} {parameters}")
    return "\n\n".join(lines)


def _react_en(tools: Tools) -> str:
    return (
        "Answer the question as well as you can. You may call these tools:\n\n"
        f"{_listed(tools, 'Parameters:')}\n\n"
        "Write in this format:\n\n"
        "Question: the question you have to answer\n"
        "Thought: what you should do next, and why\n"
        f"Action: the tool to call, one of [{_names(tools)}]\n"
        "Action Input: the arguments of the call, as a JSON object\n"
        "Observation: what the tool returned\n"
        "... (Thought, Action, Action Input and Observation may come several times, or not at all)\n"
        "Thought: I know the answer now\n"
        "Final Answer: the answer to the question\n\n"
        "Begin!"
    )


def _react_zh(tools: Tools) -> str:
    return (
        "请尽力回答问题。你可以调用以下工具：\n\n"
        f"{_listed(tools, '参数：')}\n\n"
        "请按以下格式书写：\n\n"
        "Question: 需要回答的问题\n"
        "Thought: 下一步该做什么，以及原因\n"
        f"Action: 要调用的工具，必须是 [{_names(tools)}] 之一\n"
        "Action Input: 调用的参数，用 JSON 对象表示\n"
        "Observation: 工具返回的结果\n"
        "...（Thought、Action、Action Input、Observation 可以重复多次，也可以没有）\n"
        "Thought: 我现在知道答案了\n"
        "Final Answer: 问题的答案\n\n"
        "开始！"
    )


def _toolbench(tools: Tools) -> str:
    functions = [dict(function(tool)) for tool in tools]
    return (
        "You solve the user's task step by step with function calls.\n"
        "At each step, say what you think of the state of things and make one call, in this format:\n"
        "Thought: what you think\n"
        "Action: the name of one function\n"
        "Action Input: its arguments, as a JSON object\n\n"
        "After a call you are given its result and stand at the next step. "
        "When the task is done, answer the user without a call.\n"
        f"These are the functions: {json.dumps(functions, ensure_ascii=False)}"
    )


def _glm4(tools: Tools) -> str:
    listed = "".join(
        f"\n\n## {tool['name']}\n\n{json.dumps(dict(tool), ensure_ascii=False, indent=4)}\n"
        "在调用上述函数时，请使用 Json 格式表示调用的参数。"
        for tool in map(function, tools)
    )
    return f"你可以调用下列工具来完成用户的任务。\n\n# 可用工具{listed}"


def _hermes(tools: Tools) -> str:
    listed = "\n".join(json.dumps(dict(tool), ensure_ascii=False) for tool in tools)
    return (
        "You may call functions to help with the user's question. Their signatures stand inside <tools></tools>:\n"
        f"<tools>\n{listed}\n</tools>\n\n"
        "For each call, write a JSON object with name and arguments inside <tool_call></tool_call>:\n"
        '<tool_call>\n{"name": <function-name>, "arguments": <arguments-as-JSON-object>}\n</tool_call>'
    )


def _write_react(calls: Sequence[ToolCall]) -> str:
    return write_actions(calls) + "\nObservation:"


def write_actions(calls: Sequence[ToolCall]) -> str:
    """Calls as pairs of `Action` and `Action Input` lines."""
    return "\n".join(f"Action: {call.name}\nAction Input: {call.arguments}" for call in calls)


def _write_glm4(calls: Sequence[ToolCall]) -> str:
    return "<|assistant|>".join(f"{call.name}\n{call.arguments}" for call in calls)


def _write_hermes(calls: Sequence[ToolCall]) -> str:
    return "\n".join(
        f'<tool_call>\n{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}\n</tool_call>'
        for call in calls
    )


FORMATS: Mapping[str, ToolFormat] = {
    fmt.name: fmt
    for fmt in (
        ToolFormat("react_en", _react_en, _write_react, tool_calls.ACTIONS, "inside", ("Observation:",)),
        ToolFormat("react_zh", _react_zh, _write_react, tool_calls.ACTIONS, "inside", ("Observation:",)),
        ToolFormat("toolbench", _toolbench, write_actions, tool_calls.ACTIONS, "turn"),
        ToolFormat("glm4", _glm4, _write_glm4, tool_calls.GLM4, "turn", ("<|observation|>",)),
        ToolFormat("hermes", _hermes, _write_hermes, tool_calls.HERMES, "turn"),
    )
}


def tool_format(name: str) -> ToolFormat:
    """The format called `name`. Raises SwiftError with the known names when there is none."""
    if name not in FORMATS:
        raise SwiftError(
            f"there is no tools prompt called {name!r}",
            where="--tools_prompt",
            next=f"choose one of {', '.join(FORMATS)}",
        )
    return FORMATS[name]


def parse_reply(text: str, fmt: ToolFormat) -> Message:
    """A generated answer as a message: the thinking before `</think>`, then text and calls as `fmt` reads them."""
    thinking, mark, rest = text.partition("</think>")
    if not mark:
        return fmt.parse(text)
    reasoning = thinking.removeprefix("<think>").strip("\n")
    return replace(fmt.parse(rest.lstrip("\n")), reasoning=reasoning or None)
