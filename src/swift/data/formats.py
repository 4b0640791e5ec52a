"""One function a row format: a mapping from the user's file becomes a Conversation or a Preference.

Formats are told apart by their keys, row by row. What a row says is used or named: nothing vanishes on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from swift.data import fields
from swift.data.bad_row import BadRow
from swift.data.turn_order import CALLS, Turns, arrange, role
from swift.prompts.types import Conversation, Message, Origin, Preference, Row

Fields = Mapping[str, Any]
Reader = Callable[[Fields, bool], Turns]
"""Reads the turns of a row; the flag says whether an answer must be there."""


@dataclass(frozen=True)
class Converted:
    """A row that can be used, the format it was written in, keys nobody reads, and remarks for the ledger."""

    row: Row
    format: str
    unused: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def convert(
    row: Fields,
    *,
    answered: bool = True,
    labelled: bool = False,
    origin: Origin | None = None,
    folder: Path | None = None,
    media_there: bool = True,
) -> Converted:
    """The conversation or preference that a row means.

    `answered` asks for an assistant turn at the end and `labelled` for a KTO label; relative media paths may start at
    `folder`, and must exist if media are to be there. Raises BadRow with the key, what was expected and a sample of
    the value.
    """
    if not isinstance(row, Mapping):
        raise BadRow("wrong type", expected="an object with named fields", value=row)
    format_ = detect(row)
    paired = row.get("chosen") is not None and row.get("rejected") is not None
    turns = format_.read(row, answered and not paired)
    system = fields.optional_text(row, "system")
    declared, label = fields.tools(row), fields.label(row, needed=labelled)

    def conversation(of: Turns, *, ends: bool = answered) -> Conversation:
        shown = fields.media(row, of.found, folder, there=media_there)
        return Conversation(arrange(of, system, answered=ends), declared, shown, origin)

    if paired:
        better, worse = (_continued(turns, row[key], key) for key in ("chosen", "rejected"))
        made: Row = Preference(conversation(better), conversation(worse), label)
    elif row.get("rejected_messages") is not None:
        made = Preference(conversation(turns), conversation(_listed(row, "rejected_messages")), label)
    elif row.get("rejected_response") is not None:
        worse = _continued(_without_answer(turns), row["rejected_response"], "rejected_response")
        made = Preference(conversation(turns), conversation(worse), label)
    else:
        made = conversation(turns)
        made = Preference(made, label=label) if label is not None else made
    return Converted(made, format_.name, frozenset(row) - format_.reads, tuple(dict.fromkeys(turns.notes)))


@dataclass(frozen=True)
class Format:
    """One way to write a row: the keys that tell it, its reader, and every key that is read."""

    name: str
    keys: tuple[str, ...]
    read: Reader
    reads: frozenset[str]


def detect(row: Fields) -> Format:
    """The first format whose keys all have a value, else the first whose keys are all there. Raises BadRow for none."""
    given = frozenset(key for key, value in row.items() if value is not None)
    found = _format_of(given) or _format_of(frozenset(row))
    if found is not None:
        return found
    raise BadRow("unknown format", expected=f"keys of one of: {KNOWN}", value=sorted(map(str, row)))


@lru_cache(maxsize=1024)
def _format_of(keys: frozenset[str]) -> Format | None:
    return next((format_ for format_ in FORMATS if keys.issuperset(format_.keys)), None)


def query_response(row: Fields, answered: bool) -> Turns:
    """`query`, `response`, `history` (pairs), with `query_role` and `history_roles`; a response alone is plain text."""
    if "query" not in row and not row.get("history"):
        return _plain(row, "response")
    turns = _history(row)
    speaker = row.get("query_role") or "user"
    turns.add("query", _spoken(speaker, "query_role", _query(row.get("query"), "query", row), "query"))
    return _answer(turns, row, "response", answered)


def alpaca(row: Fields, answered: bool) -> Turns:
    """`instruction`, `input`, `output`, and `history` as in query/response."""
    turns = _history(row)
    given = [fields.optional_text(row, key) for key in ("instruction", "input")]
    turns.add("instruction", Message("user", _query("\n".join(part for part in given if part), "instruction", row)))
    return _answer(turns, row, "output", answered)


def conversations(row: Fields, answered: bool) -> Turns:
    """ShareGPT: a list of `from`/`value` turns."""
    return _listed(row, "conversations")


def messages(row: Fields, answered: bool) -> Turns:
    """OpenAI: a list of `role`/`content` turns, with tool calls and content parts."""
    return _listed(row, "messages")


def conversation(row: Fields, answered: bool) -> Turns:
    """A list of `human`/`assistant` pairs, or of turns."""
    pairs = fields.a_list(row["conversation"], "conversation")
    if not (pairs and isinstance(pairs[0], dict) and "human" in pairs[0]):
        return _listed(row, "conversation")
    turns = Turns()
    for number, pair in enumerate(pairs):
        for name in ("human", "assistant"):
            key = f"conversation[{number}].{name}"
            said = pair.get(name) if isinstance(pair, dict) else None
            turns.add(key, Message(role(name, key), fields.text(said, key)))
    return turns


def text(row: Fields, answered: bool) -> Turns:
    """Pre-training: `text`, after an optional `prompt` that is not trained."""
    if row.get("prompt") is None:
        return _plain(row, "text")
    turns = Turns()
    turns.add("prompt", Message("user", fields.text(row["prompt"], "prompt")))
    return _answer(turns, row, "text", answered=True)


def prompt_completion(row: Fields, answered: bool) -> Turns:
    """`prompt` and `completion`, each a text or a list of turns."""
    turns = _continued(Turns(), row.get("prompt"), "prompt", speaker="user")
    if row.get("completion") is None and not answered:
        return turns
    return _continued(turns, row.get("completion"), "completion")


def chosen_rejected(row: Fields, answered: bool) -> Turns:
    """`chosen` and `rejected` as whole conversations: there are no turns besides them."""
    return Turns()


_COMMON = frozenset(
    ["system", "tools", "objects", "label", "rejected_response", "rejected_messages", "chosen", "rejected"]
).union(*fields.MEDIA_KEYS.values())
_PAIRS = ("history", "history_roles")


def _format(name: str, keys: tuple[str, ...], read: Reader, *also: str) -> Format:
    return Format(name, keys, read, _COMMON.union(keys, also))


FORMATS = (
    _format("query/response", ("response",), query_response, "query", "query_role", *_PAIRS),
    _format("alpaca", ("instruction", "output"), alpaca, "input", *_PAIRS),
    _format("conversations", ("conversations",), conversations),
    _format("messages", ("messages",), messages),
    _format("conversation", ("conversation",), conversation),
    _format("text", ("text",), text, "prompt"),
    _format("prompt/completion", ("prompt",), prompt_completion, "completion"),
    _format("query", ("query",), query_response, "query_role", *_PAIRS),
    _format("instruction", ("instruction",), alpaca, "input", *_PAIRS),
    _format("chosen/rejected", ("chosen", "rejected"), chosen_rejected),
)
"""In order of precedence."""
KNOWN = "query+response, instruction+output, conversations, messages, text, prompt+completion, chosen+rejected"


def _query(value: Any, key: str, row: Fields) -> str:
    return fields.text(value, key, empty=any(row.get(name) for name in fields.MEDIA_NAMES.intersection(row)))


def _plain(row: Fields, key: str) -> Turns:
    turns = Turns(plain=True)
    turns.add(key, Message("assistant", fields.text(row.get(key), key)))
    return turns


def _answer(turns: Turns, row: Fields, key: str, answered: bool) -> Turns:
    if answered or row.get(key):
        if key not in row:
            raise BadRow("missing key", key=key, expected="the answer to train on", value=sorted(map(str, row)))
        turns.add(key, Message("assistant", fields.text(row[key], key)))
    return turns


def _history(row: Fields) -> Turns:
    turns = Turns()
    pairs = fields.a_list(row.get("history"), "history")
    roles = fields.a_list(row.get("history_roles"), "history_roles")
    for number, pair in enumerate(pairs):
        key = f"history[{number}]"
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise BadRow("wrong type", key=key, expected="a pair of question and answer", value=pair)
        speakers = roles[number] if number < len(roles) else ("user", "assistant")
        if not isinstance(speakers, list | tuple) or len(speakers) != 2:
            raise BadRow("wrong type", key=f"history_roles[{number}]", expected="a pair of roles", value=speakers)
        for side, (speaker, said) in enumerate(zip(speakers, pair, strict=True)):
            where = f"{key}[{side}]"
            turns.add(where, _spoken(speaker, where, fields.text(said, where), where))
    return turns


def _spoken(speaker: Any, speaker_key: str, said: str, key: str) -> Message:
    """A text and who says it; under a role such as `function_call` the text is a tool call."""
    who = role(speaker, speaker_key)
    return Message(who, "", fields.tool_calls(said, key)) if speaker in CALLS else Message(who, said)


def _listed(row: Fields, key: str) -> Turns:
    turns = Turns()
    for number, item in enumerate(fields.a_list(row.get(key), key)):
        _add_turn(turns, item, f"{key}[{number}]")
    if not turns.messages:
        raise BadRow("empty value", key=key, expected="a list of turns", value=row.get(key))
    return turns


def _add_turn(turns: Turns, item: Any, key: str) -> None:
    """One turn as `role`/`content` or `from`/`value`, with what OpenAI adds to it."""
    if not isinstance(item, Mapping):
        raise BadRow("wrong type", key=key, expected="an object with role and content", value=item)
    role_key, content_key = ("role", "content") if "role" in item else ("from", "value")
    if role_key not in item:
        raise BadRow("missing key", key=f"{key}.role", expected="system, user, assistant or tool", value=sorted(item))
    name = item[role_key]
    speaker = role(name, f"{key}.{role_key}")
    where = f"{key}.{content_key}"
    said = item.get(content_key)
    if name in CALLS:
        calls = fields.tool_calls(fields.text(said, where) if not isinstance(said, list | dict) else said, where)
        turns.add(key, Message("assistant", "", calls))
        return
    calls = fields.tool_calls(item.get("tool_calls"), f"{key}.tool_calls")
    if said is None and calls:
        said = ""
    spoken = fields.content(said, where, turns.found, empty=bool(calls) or speaker in ("system", "tool"))
    reasoning = fields.optional_text(item, "reasoning_content") or fields.optional_text(item, "reasoning")
    turns.add(key, Message(speaker, spoken, calls, reasoning, _weight(item, key)))


def _weight(item: Fields, key: str) -> float | None:
    value = item.get("weight", item.get("loss"))
    if value is None or isinstance(value, bool | int | float):
        return None if value is None else float(value)
    raise BadRow("wrong type", key=f"{key}.weight", expected="a number", value=value)


def _continued(turns: Turns, end: Any, key: str, speaker: str = "assistant") -> Turns:
    """The turns followed by an end: a text, one turn, or a list of turns (a whole conversation stands for itself)."""
    longer = replace(turns, messages=list(turns.messages), keys=list(turns.keys), found=dict(turns.found), plain=False)
    if isinstance(end, Mapping):
        _add_turn(longer, end, key)
    elif isinstance(end, list | tuple):
        if _opens(end):
            longer.messages.clear()
            longer.keys.clear()
        for number, item in enumerate(end):
            _add_turn(longer, item, f"{key}[{number}]")
    else:
        longer.add(key, Message(role(speaker, key), fields.text(end, key)))
    return longer


def _opens(end: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a list of turns starts a conversation, instead of going on with one."""
    first = end[0] if end else None
    name = first.get("role", first.get("from")) if isinstance(first, Mapping) else None
    return name in ("system", "developer", "user", "human")


def _without_answer(turns: Turns) -> Turns:
    """The turns before the last answer."""
    last = len(turns.messages)
    while last and turns.messages[last - 1].role == "assistant":
        last -= 1
    return replace(turns, messages=turns.messages[:last], keys=turns.keys[:last])
