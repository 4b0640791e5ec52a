"""The order of turns: what every conversation must keep to, whatever format it was written in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from swift.prompts.bad_row import BadRow
from swift.prompts.messages import Aside, read_message, results_apart
from swift.prompts.tool_results import in_order_of_calls
from swift.prompts.types import Message, Role


@dataclass
class Turns:
    """The turns of a row as they are read, each with the path of its field, and remarks for the ledger."""

    messages: list[Message] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    aside: Aside = field(default_factory=lambda: Aside(beside=True))
    notes: list[str] = field(default_factory=list)
    columns: set[str] = field(default_factory=set)
    """Columns that were read besides those of the row's format."""
    plain: bool = False
    """A text without turns, trained from its first token on; it is kept as one assistant message."""

    def going_on(self) -> Turns:
        """A copy that other turns may follow; keys that nobody reads and remarks are told of all copies together."""
        media = {kind: list(links) for kind, links in self.aside.media.items()}
        aside = Aside(media, self.aside.unread, self.aside.beside)
        return replace(self, messages=list(self.messages), keys=list(self.keys), aside=aside, plain=False)

    def add(self, key: str, message: Message) -> None:
        self.messages.append(message)
        self.keys.append(key)

    def read(self, key: str, item: Any) -> None:
        """Add what stands as one turn at `key` of the row."""
        for place, turn in results_apart(item, key):
            self.add(place, read_message(turn, place, self.aside))


def arrange(turns: Turns, system: str | None, *, answered: bool) -> tuple[Message, ...]:
    """The messages in their right order: an optional system turn, then user, assistant, tools and assistant again …

    Results of tools follow the order of their calls. Neighbouring user turns are joined with a line break and noted;
    text and calls of one assistant turn that were written apart become one. `answered` asks for an assistant turn at
    the end. Raises BadRow for any other order, and for calls and results that do not belong together.
    """
    if turns.plain:
        if system:
            turns.notes.append("a plain text has no system text: it is left out")
        return tuple(turns.messages)
    arranged: list[Message] = []
    previous: Role | None = None
    for key, message in zip(turns.keys, in_order_of_calls(turns.messages, turns.keys), strict=True):
        if message.role == "system":
            if previous is not None:
                raise BadRow("roles out of order", key=key, expected="a system turn only at the start", value="system")
            if system is not None and system != message.content:
                turns.notes.append("the system turn of the list is used, not the `system` key")
            system = message.content
            previous = "system"
            continue
        joined = _joined(arranged[-1], message, key, turns.notes) if message.role == previous else None
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


def _joined(before: Message, now: Message, key: str, notes: list[str]) -> Message | None:
    """Two neighbouring turns of one role as one, or None where that would invent something."""
    if now.role == "user":
        notes.append("user turns in a row joined")
        return replace(before, content=f"{before.content}\n{now.content}")
    if now.role == "assistant" and (before.tool_calls or now.tool_calls):
        if before.weight != now.weight and None not in (before.weight, now.weight):
            weights = [before.weight, now.weight]
            raise BadRow(
                "wrong weight", key=key, expected="one weight for the text and the call of an answer", value=weights
            )
        return replace(
            before,
            content="\n".join(filter(None, (before.content, now.content))),
            tool_calls=before.tool_calls + now.tool_calls,
            reasoning="\n".join(filter(None, (before.reasoning, now.reasoning))) or None,
            weight=now.weight if before.weight is None else before.weight,
        )
    return None
