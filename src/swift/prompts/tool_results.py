"""Results of tools in the order of the calls they answer: prompts show no ids, so the order says which is which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from swift.prompts.bad_row import BadRow
from swift.prompts.types import Message, ToolCall


def in_order_of_calls(messages: Sequence[Message], keys: Sequence[str]) -> list[Message]:
    """The messages, each run of results in the order of the calls before it; `keys` are their places in the row.

    Results are told by their ids, else by the names of their functions, else by their order; without ids one result may
    answer all calls of a turn. Calls that end a conversation have no results yet. Raises BadRow for a result without a
    call, and for a call that goes unanswered.
    """
    ordered: list[Message] = []
    calls: list[ToolCall] = []
    results: list[tuple[str, Message]] = []
    place = ""
    for key, message in zip(keys, messages, strict=True):
        if message.role == "tool":
            results.append((key, message))
            continue
        goes_on = message.role == "assistant" and (message.tool_calls or not message.content.strip())
        if message.role != "system" and (results or (calls and not goes_on)):
            ordered += _paired(calls, results, place)
            calls, results = [], []
        if message.tool_calls:
            calls += message.tool_calls
            place = key
        ordered.append(message)
    return ordered + (_paired(calls, results, place) if results else [])


def join_results(messages: Sequence[Message]) -> list[Message]:
    """The messages, results of tools that stand in a row as one, a line each."""
    joined: list[Message] = []
    for message in messages:
        if message.role == "tool" and joined and joined[-1].role == "tool":
            joined[-1] = replace(joined[-1], content=f"{joined[-1].content}\n{message.content}")
        else:
            joined.append(message)
    return joined


def _paired(calls: Sequence[ToolCall], results: Sequence[tuple[str, Message]], place: str) -> list[Message]:
    turns = [message for _, message in results]
    if any(turn.tool_call_id for turn in turns) and (not calls or any(call.id for call in calls)):
        return _by_id(calls, results, place)
    if not calls:
        # The call may stand in the text of the answer.
        return turns
    if len(turns) != len(calls) and len(turns) != 1:
        raise _unanswered(calls, len(turns), place)
    names = [call.name for call in calls]
    if len(set(names)) == len(names) and sorted(names) == sorted(turn.name or "" for turn in turns):
        turns.sort(key=lambda turn: names.index(turn.name or ""))
    return [
        replace(turn, tool_call_id=call.id, name=turn.name or call.name)
        for turn, call in zip(turns, calls, strict=False)
    ]


def _by_id(calls: Sequence[ToolCall], results: Sequence[tuple[str, Message]], place: str) -> list[Message]:
    """Each result at the place of its call; results without an id take the places that are left."""
    answers: list[Message | None] = [None] * len(calls)
    for key, result in results:
        if result.tool_call_id:
            matches = [i for i, call in enumerate(calls) if call.id == result.tool_call_id and answers[i] is None]
            if not matches:
                open_ids = ", ".join(str(call.id) for call in calls) or "no call"
                raise BadRow(
                    "result without its call",
                    key=f"{key}.tool_call_id",
                    expected=f"the id of a call before it ({open_ids})",
                    value=result.tool_call_id,
                )
            answers[matches[0]] = result
    left = iter(result for _, result in results if not result.tool_call_id)
    filled = [answer or next(left, None) for answer in answers]
    if None in filled or next(left, None) is not None:
        raise _unanswered(calls, len(results), place)
    return [answer for answer in filled if answer is not None]


def _unanswered(calls: Sequence[ToolCall], results: int, place: str) -> BadRow:
    return BadRow(
        "call without its result",
        key=f"{place}.tool_calls",
        expected=f"a result for each call ({', '.join(call.name for call in calls)})",
        value=f"{results} results",
    )
