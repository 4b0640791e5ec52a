"""One function a row format: a mapping from the user's file becomes a Conversation or a Preference.

Formats are told apart by their keys, row by row. What a row says is used or named: nothing vanishes on the way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from swift.data import fields
from swift.data.column_proposal import is_turns, proposal
from swift.data.turn_order import Turns, arrange
from swift.data.unseen_media import unseen
from swift.prompts import values
from swift.prompts.bad_row import BadRow
from swift.prompts.media_links import out_of_text
from swift.prompts.messages import REASONING, role, spoken, tools, without_thinking
from swift.prompts.types import Conversation, Message, Origin, Preference, Row, ToolCall

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
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Columns that stood under another name in the file, old to new."""


def convert(
    row: Fields,
    *,
    answered: bool = True,
    labelled: bool = False,
    origin: Origin | None = None,
    folder: Path | None = None,
    media_there: bool = True,
    media_in_text: bool = False,
) -> Converted:
    """The conversation or preference that a row means.

    `answered` asks for an assistant turn at the end and `labelled` for a KTO label; relative media paths may start at
    `folder`, and must exist if media are to be there. With `media_in_text` questions may name files themselves, as in
    `<img>a.png</img>`. Raises BadRow with the key, what was expected and a sample of the value.
    """
    if not isinstance(row, Mapping):
        expected = "an object with named fields" + (', such as {"messages": […]}' if is_turns(row) else "")
        raise BadRow("wrong type", expected=expected, value=row)
    format_ = detect(row)
    paired = row.get("chosen") is not None and row.get("rejected") is not None
    turns = format_.read(row, answered and not paired)
    system = next((given for key in SYSTEM if (given := values.optional_text(row, key)) is not None), None)
    declared, label = tools(row), fields.label(row, needed=labelled)
    worse: Turns | None = None
    if paired:
        prompt = turns if _opens(row["chosen"]) else _without_answer(turns)
        if len(prompt.messages) < len(turns.messages):
            turns.notes.append("an answer beside `chosen` and `rejected` is not used")
            turns.columns.discard(REASONING)
        turns, worse = (_continued(prompt, row[key], key) for key in ("chosen", "rejected"))
    elif row.get("rejected_messages") is not None:
        worse = _listed(row, "rejected_messages")
    elif row.get("rejected_response") is not None:
        worse = _continued(_without_answer(turns), row["rejected_response"], "rejected_response")

    if worse is not None and _asked_of(turns) != _asked_of(worse):
        turns.notes.append(OTHER_PROMPT)

    def conversation(of: Turns) -> Conversation:
        shown = fields.media(row, of.aside.media, folder, there=media_there)
        messages = arrange(of, system, answered=answered)
        if media_in_text:
            messages, files = out_of_text(messages)
            fields.refuse_both(shown, files)
            shown = fields.media(row, {**of.aside.media, **files}, folder, there=media_there) if files else shown
        return Conversation(messages, declared, shown, origin)

    ends = [turns] if worse is None else [turns, worse]
    read = list(map(conversation, ends))
    paired_or_labelled = worse is not None or label is not None
    meant: Row = Preference(read[0], *read[1:], label=label) if paired_or_labelled else read[0]
    unread = frozenset(row) - format_.reads - turns.columns
    unused = frozenset(key for key in unread if row[key] is not None).union(*(end.aside.unread for end in ends))
    notes = [note for end in ends for note in end.notes]
    if media_in_text:
        notes += unseen(row, unused, read[0].media)
    return Converted(meant, format_.name, unused, tuple(dict.fromkeys(notes)))


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
    format_ = _format_of(given) or _format_of(frozenset(row))
    if format_ is not None:
        return format_
    raise BadRow("unknown format", expected=f"keys of one of: {KNOWN}{proposal(row)}", value=sorted(map(str, row)))


@lru_cache(maxsize=1024)
def _format_of(keys: frozenset[str]) -> Format | None:
    return next((format_ for format_ in FORMATS if keys.issuperset(format_.keys)), None)


def query_response(row: Fields, answered: bool) -> Turns:
    """`query`, `response`, `history` (pairs), with `query_role` and `history_roles`; a response alone is plain text."""
    if "query" not in row and not row.get("history"):
        turns = _plain(row, "response")
        turns.notes.append(PLAIN_ANSWER)
        return turns
    turns = _history(row)
    speaker = row.get("query_role") or "user"
    turns.add("query", spoken(speaker, "query_role", _query(row.get("query"), "query", row), "query", turns.aside))
    return _answer(turns, row, "response", answered)


def question_answer(row: Fields, answered: bool, *, question: str) -> Turns:
    """A question, perhaps with a text it is about, and its answer, as one of the ANSWERS; `history` as above."""
    turns = _history(row)
    answer = next((key for key in ANSWERS if row.get(key) is not None), None)
    answer = answer or next(
        (key for key in ANSWERS if key in row), "output" if question == "instruction" else "response"
    )
    if isinstance(row.get(question), list | tuple | Mapping):
        turns = _continued(turns, row[question], question, speaker="user")
    else:
        about = [key for key in CONTEXTS if key != question]
        given = [values.optional_text(row, key) for key in (question, *about)]
        turns.add(question, Message("user", _query("\n".join(filter(None, given)), question, row)))
    if isinstance(row.get(answer), list | tuple | Mapping):
        return _continued(turns, row[answer], answer)
    return _answer(turns, row, answer, answered)


def conversations(row: Fields, answered: bool) -> Turns:
    """ShareGPT: a list of `from`/`value` turns."""
    return _alone(_listed(row, "conversations"))


def messages(row: Fields, answered: bool) -> Turns:
    """OpenAI: a list of `role`/`content` turns, with tool calls and content parts."""
    return _alone(_listed(row, "messages"))


def conversation(row: Fields, answered: bool) -> Turns:
    """A list of `human`/`assistant` or `input`/`output` pairs, or of turns."""
    pairs = values.a_list(row["conversation"], "conversation")
    first = pairs[0] if pairs and isinstance(pairs[0], dict) else {}
    names = next((names for names in PAIRS if names[0] in first), None)
    if names is None:
        return _listed(row, "conversation")
    turns = Turns()
    for number, pair in enumerate(pairs):
        for name, speaker in zip(names, ("user", "assistant"), strict=True):
            key = f"conversation[{number}].{name}"
            given = values.text(pair.get(name) if isinstance(pair, dict) else None, key)
            turns.add(key, Message(role(speaker, key), given))
        turns.aside.unread |= {f"conversation[].{key}" for key in pair if key not in names}
    return turns


def text(row: Fields, answered: bool) -> Turns:
    """Pre-training: `text`, after an optional `prompt` that is not trained."""
    if row.get("prompt") is None:
        return _plain(row, "text")
    turns = Turns()
    turns.add("prompt", Message("user", values.text(row["prompt"], "prompt")))
    return _answer(turns, row, "text", answered=True)


def prompt_completion(row: Fields, answered: bool) -> Turns:
    """`prompt` and `completion`, each a text or a list of turns."""
    turns = _continued(Turns(), row.get("prompt"), "prompt", speaker="user")
    if row.get("completion") is None and not answered:
        return turns
    if isinstance(row.get("completion"), list | tuple | Mapping):
        return _continued(turns, row["completion"], "completion")
    return _answer(turns, row, "completion", answered=True)


def chosen_rejected(row: Fields, answered: bool) -> Turns:
    """`chosen` and `rejected` as whole conversations: there are no turns besides them.

    Two texts without a prompt mean something only as dialogues with the marks of HH-RLHF.
    """
    ends = (row["chosen"], row["rejected"])
    for key, end in zip(("chosen", "rejected"), ends, strict=True):
        if isinstance(end, str) and turns_in_text(end) is None:
            expected = f"the prompt of both answers{proposal(row, 'query')}, or turns in `{key}`"
            raise BadRow("missing key", key="prompt", expected=expected, value=sorted(map(str, row)))
    return Turns()


SYSTEM = ("system", "system_prompt", "system_message")
QUESTIONS = ("query", "instruction", "question", "prompt", "problem", "user", "human", "input")
ANSWERS = ("response", "output", "completion", "solution", "answer", "assistant")
"""Columns of public data sets, those that come first win: of a `solution` and an `answer` the first is the whole."""
CONTEXTS = ("input", "context")
"""Columns that follow the question in one turn with it."""
PLAIN_ANSWER = "a response with nothing before it is trained as plain text"
OTHER_PROMPT = "the better and the worse answer have different prompts"
PAIRS = (("human", "assistant"), ("input", "output"))
"""Names of a question and its answer in a list of pairs."""
DIALOGUE = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")
_COMMON = frozenset(
    ["tools", "functions", "objects", "rejected_response", "rejected_messages", "chosen", "rejected"]
).union(SYSTEM, fields.LABELS, *fields.MEDIA_KEYS.values())
_PAIRS = ("history", "history_roles")


def _format(name: str, keys: tuple[str, ...], read: Reader, *also: str) -> Format:
    return Format(name, keys, read, _COMMON.union(keys, also))


def _asked(question: str, *answer: str, name: str | None = None) -> Format:
    read = partial(question_answer, question=question)
    return _format(name or "/".join((question, *answer)), (question, *answer), read, *CONTEXTS, *_PAIRS)


FORMATS = (
    _format("query/response", ("query", "response"), query_response, "query_role", *_PAIRS),
    _format("query/response", ("history", "response"), query_response, "query", "query_role", *_PAIRS),
    _asked("instruction", "output", name="alpaca"),
    _format("conversations", ("conversations",), conversations),
    _format("messages", ("messages",), messages),
    _format("conversation", ("conversation",), conversation),
    _format("prompt/completion", ("prompt", "completion"), prompt_completion),
    *(_asked(question, answer) for question in QUESTIONS for answer in ANSWERS),
    _format("text", ("text",), text, "prompt"),
    _format("query", ("query",), query_response, "response", "query_role", *_PAIRS),
    _format("response", ("response",), query_response, "query", "query_role", *_PAIRS),
    _asked("instruction"),
    _format("prompt/completion", ("prompt",), prompt_completion, "completion"),
    _asked("question"),
    _asked("problem"),
    _asked("input", "chosen", "rejected"),
    _format("chosen/rejected", ("chosen", "rejected"), chosen_rejected),
)
"""In order of precedence."""
NAMES = frozenset((REASONING,)).union(*(format_.reads for format_ in FORMATS))
"""Every column that some format reads."""
KNOWN = (
    "query+response, instruction+output, question+answer, conversations, messages, text, prompt+completion, "
    "chosen+rejected"
)


def _query(value: Any, key: str, row: Fields) -> str:
    return values.text(value, key, empty=any(row.get(name) for name in fields.MEDIA_NAMES.intersection(row)))


def _plain(row: Fields, key: str) -> Turns:
    turns = Turns(plain=True)
    turns.add(key, Message("assistant", values.text(row.get(key), key)))
    return turns


def _answer(turns: Turns, row: Fields, key: str, answered: bool) -> Turns:
    if answered or row.get(key):
        if key not in row:
            raise _missing(row, key)
        turns.columns.add(REASONING)
        thinking = values.optional_text(row, REASONING) or None
        answer = without_thinking(values.text(row[key], key), thinking, key)
        turns.add(key, Message("assistant", answer, reasoning=thinking))
    return turns


def _missing(row: Fields, key: str) -> BadRow:
    expected = f"the answer to train on{proposal(row, 'response')}"
    return BadRow("missing key", key=key, expected=expected, value=sorted(map(str, row)))


def _history(row: Fields) -> Turns:
    turns = Turns()
    pairs = values.a_list(row.get("history"), "history")
    roles = values.a_list(row.get("history_roles"), "history_roles")
    for number, pair in enumerate(pairs):
        key = f"history[{number}]"
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise BadRow("wrong type", key=key, expected="a pair of question and answer", value=pair)
        speakers = roles[number] if number < len(roles) else ("user", "assistant")
        if not isinstance(speakers, list | tuple) or len(speakers) != 2:
            raise BadRow("wrong type", key=f"history_roles[{number}]", expected="a pair of roles", value=speakers)
        for side, (speaker, content) in enumerate(zip(speakers, pair, strict=True)):
            where = f"{key}[{side}]"
            turns.add(where, spoken(speaker, where, values.text(content, where), where, turns.aside))
    return turns


def _listed(row: Fields, key: str) -> Turns:
    turns = Turns()
    for number, item in enumerate(values.a_list(row.get(key), key)):
        turns.read(f"{key}[{number}]", item)
    if not turns.messages:
        raise BadRow("empty value", key=key, expected="a list of turns", value=row.get(key))
    return turns


def _alone(turns: Turns) -> Turns:
    """The turns, or the text that is meant by one answer to nothing, as later releases write rows of pre-training."""
    first = turns.messages[0]
    if len(turns.messages) > 1 or first != Message("assistant", first.content):
        return turns
    return replace(turns, plain=True, notes=[*turns.notes, PLAIN_ANSWER])


def _continued(turns: Turns, end: Any, key: str, speaker: str = "assistant") -> Turns:
    """The turns followed by an end: a text, one turn, or a list of turns (a whole conversation stands for itself)."""
    longer = turns.going_on()
    if isinstance(end, str) and key in ("chosen", "rejected"):
        written = turns_in_text(end, dialogue=not turns.messages)
        end = end if written is None else written
    if isinstance(end, Mapping):
        longer.read(key, end)
    elif isinstance(end, list | tuple):
        if _opens(end):
            longer.messages.clear()
            longer.keys.clear()
            longer.aside.media.clear()
        if end and all(isinstance(item, str) for item in end):
            expected = "a text or turns; the answers of a pair are `chosen` and `rejected`, one each"
            raise BadRow("wrong type", key=key, expected=expected, value=end)
        for number, item in enumerate(end):
            longer.read(f"{key}[{number}]", item)
    else:
        longer.add(key, Message(role(speaker, key), values.text(end, key)))
    return longer


def turns_in_text(text: str, *, dialogue: bool = True) -> list[dict[str, Any]] | None:
    """The turns that a text holds: a list of them as JSON, or (`dialogue`) lines of HH-RLHF; None for plain text."""
    if text.lstrip().startswith("[{"):
        try:
            turns = json.loads(text)
        except ValueError:
            return None
        spoken_by = [turn.get("role", turn.get("from")) if isinstance(turn, dict) else None for turn in turns]
        return turns if all(isinstance(name, str) for name in spoken_by) else None
    parts = DIALOGUE.split(text)
    if not dialogue or parts[0].strip() or "Human" not in parts[1::2]:
        return None
    names = {"Human": "user", "Assistant": "assistant"}
    return [{"role": names[name], "content": said.strip()} for name, said in zip(parts[1::2], parts[2::2], strict=True)]


def _asked_of(turns: Turns) -> list[tuple[str, str, tuple[ToolCall, ...]]]:
    """What the last answer follows, without what only the format of the row decides."""
    return [(turn.role, turn.content, turn.tool_calls) for turn in _without_answer(turns).messages]


def _opens(end: Any) -> bool:
    """Whether a list of turns starts a conversation, instead of going on with one."""
    if isinstance(end, str):
        end = turns_in_text(end)
    first = end[0] if isinstance(end, list | tuple) and end else None
    name = first.get("role", first.get("from")) if isinstance(first, Mapping) else None
    return name in ("system", "developer", "user", "human")


def _without_answer(turns: Turns) -> Turns:
    """The turns before the last answer."""
    last = len(turns.messages)
    while last and turns.messages[last - 1].role == "assistant":
        last -= 1
    return replace(turns, messages=turns.messages[:last], keys=turns.keys[:last])
