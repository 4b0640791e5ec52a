"""The order of turns: what every conversation must keep to, whatever format it was written in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from swift.data.bad_row import BadRow
from swift.prompts.types import Message, Role

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
CALLS = ("function_call", "tool_call")
"""Roles whose text is a tool call written as JSON."""


@dataclass
class Turns:
    """The turns of a row as they are read, each with the path of its field, and remarks for the ledger."""

    messages: list[Message] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    found: dict[str, list[str]] = field(default_factory=dict)
    """Media that stood inside content parts."""
    notes: list[str] = field(default_factory=list)
    plain: bool = False
    """A text without turns, trained from its first token on; it is kept as one assistant message."""

    def add(self, key: str, message: Message) -> None:
        self.messages.append(message)
        self.keys.append(key)


def role(value: Any, key: str) -> Role:
    """The role behind any of its usual names. Raises BadRow for an unknown one."""
    known = ROLES.get(value) if isinstance(value, str) else None
    if known is None:
        raise BadRow("unknown role", key=key, expected="system, user, assistant or tool", value=value)
    return known


def arrange(turns: Turns, system: str | None, *, answered: bool) -> tuple[Message, ...]:
    """The messages in their right order: an optional system turn, then user, assistant, tools and assistant again …

    Neighbouring user turns are joined with a line break and noted; text and calls of one assistant turn that were
    written apart become one. `answered` asks for an assistant turn at the end. Raises BadRow for any other order.
    """
    if turns.plain:
        return tuple(turns.messages)
    arranged: list[Message] = []
    previous: Role | None = None
    for key, message in zip(turns.keys, turns.messages, strict=True):
        if message.role == "system":
            if previous is not None:
                raise BadRow("roles out of order", key=key, expected="a system turn only at the start", value="system")
            if system is not None and system != message.content:
                turns.notes.append("the system turn of the list is used, not the `system` key")
            system = message.content
            previous = "system"
            continue
        joined = _joined(arranged[-1], message, turns.notes) if message.role == previous else None
        if joined is not None:
            arranged[-1] = joined
        elif message.role in _AFTER[previous]:
            arranged.append(message)
        else:
            raise BadRow("roles out of order", key=key, expected=_expected(previous), value=message.role)
        previous = message.role
    if not arranged:
        raise BadRow("empty value", key="messages", expected="at least one turn", value=[])
    if answered and previous != "assistant":
        raise BadRow("roles out of order", key=turns.keys[-1], expected="an assistant turn at the end", value=previous)
    return (Message("system", system), *arranged) if system is not None else tuple(arranged)


_AFTER: dict[Role | None, tuple[Role, ...]] = {
    None: ("user",),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


def _expected(previous: Role | None) -> str:
    after = " or ".join(_AFTER[previous])
    return f"a {after} turn first" if previous in (None, "system") else f"a turn of {after} after {previous}"


def _joined(before: Message, now: Message, notes: list[str]) -> Message | None:
    """Two neighbouring turns of one role as one, or None where that would invent something."""
    if now.role == "user":
        notes.append("user turns in a row joined")
        return replace(before, content=f"{before.content}\n{now.content}")
    if now.role == "assistant" and (before.tool_calls or now.tool_calls):
        content = "\n".join(part for part in (before.content, now.content) if part)
        return replace(before, content=content, tool_calls=before.tool_calls + now.tool_calls)
    return None
