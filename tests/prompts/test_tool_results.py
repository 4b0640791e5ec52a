"""Results of tools follow the order of their calls; what belongs to nothing is named."""

from __future__ import annotations

from typing import Any

import pytest

from swift.data.formats import convert
from swift.prompts.bad_row import BadRow
from swift.prompts.types import Conversation, Preference

ASK, SAY = {"role": "user", "content": "q"}, {"role": "assistant", "content": "done"}


def calls(*names: str, ids: bool = True) -> dict[str, Any]:
    made = [{"function": {"name": name, "arguments": "{}"}, **({"id": name[0]} if ids else {})} for name in names]
    return {"role": "assistant", "content": "", "tool_calls": made}


def result(text: str, identity: str | None = None, **more: Any) -> dict[str, Any]:
    return {"role": "tool", "content": text, **({"tool_call_id": identity} if identity else {}), **more}


TWO = calls("ship", "count")
ORDERED: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "as they came": ([TWO, result("sent", "s"), result("12", "c")], ["sent", "12"]),
    "swapped": ([TWO, result("12", "c"), result("sent", "s")], ["sent", "12"]),
    "one without an id": ([TWO, result("12", "c"), result("sent")], ["sent", "12"]),
    "by name": (
        [calls("ship", "count", ids=False), result("12", name="count"), result("sent", name="ship")],
        ["sent", "12"],
    ),
    "by place": ([calls("ship", "count", ids=False), result("1"), result("2")], ["1", "2"]),
    "one for both": ([calls("ship", "count", ids=False), result("sent, 12")], ["sent, 12"]),
    "the same id twice": ([calls("ship", "show"), result("1", "s"), result("2", "s")], ["1", "2"]),
    "two rounds": (
        [TWO, result("12", "c"), result("sent", "s"), calls("show", "count"), result("9", "c"), result("8", "s")],
        ["sent", "12", "8", "9"],
    ),
    "call in the text": ([{"role": "assistant", "content": "Action: f"}, result("ok")], ["ok"]),
}


@pytest.mark.parametrize("name", ORDERED)
def test_results_stand_in_the_order_of_their_calls(name: str) -> None:
    turns, texts = ORDERED[name]
    row = convert({"messages": [ASK, *turns, SAY]}).row
    pair = convert({"messages": [ASK, *turns], "chosen": "a", "rejected": "b"}).row
    assert isinstance(row, Conversation) and isinstance(pair, Preference) and pair.rejected is not None
    for conversation in (row, pair.chosen, pair.rejected):
        assert [message.content for message in conversation.messages if message.role == "tool"] == texts


@pytest.mark.parametrize(
    ("turns", "fault"),
    [
        ([TWO, result("12", "c")], r"call without its result: messages\[1\].tool_calls: .*\(ship, count\)"),
        ([TWO, result("12", "z"), result("sent", "s")], r"result without its call: messages\[2\].tool_call_id"),
        ([TWO, result("12", "c"), result("12", "c")], r"result without its call: messages\[3\].tool_call_id"),
        ([TWO, result("1", "s"), result("2", "c"), result("3")], "call without its result"),
        ([SAY, result("12", "c")], r"result without its call.* \(no call\)"),
        ([TWO, ASK], "call without its result"),
        ([TWO, SAY], "call without its result"),
        ([TWO], "call without its result"),
        ([calls("ship", ids=False)], "call without its result"),
        ([calls("a", "b", "c", ids=False), result("1"), result("2")], "call without its result"),
    ],
)
def test_what_belongs_to_nothing_is_named(turns: list[dict[str, Any]], fault: str) -> None:
    with pytest.raises(BadRow, match=fault):
        convert({"messages": [ASK, *turns, SAY]})


def test_a_conversation_may_end_with_its_call() -> None:
    row = convert({"messages": [ASK, TWO]}).row
    assert isinstance(row, Conversation) and len(row.messages[1].tool_calls) == 2
