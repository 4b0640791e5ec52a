"""What a chat template makes of a row's text: left out, stripped or written in another order. Each is a remark.

Templates are black boxes, so the text of the row is looked for in the text that came out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from swift.prompts.spans import Answer
from swift.prompts.types import Message

THINKING = "the chat template leaves out the thinking of an answer"
TEXT = "the chat template leaves out or rewrites text of an answer"
CALLS = "the chat template leaves out a call of an answer, or its arguments"
LOST = frozenset((THINKING, TEXT, CALLS))
"""The row teaches something else than it says."""
BLANKS = "the chat template strips blanks around an answer"
ORDER = "the chat template writes the parts of an answer in another order"
QUIET = frozenset((BLANKS, ORDER))
"""Remarks that need no warning."""
CONTEXT = {
    "system": "the chat template leaves out the system text",
    "user": "the chat template leaves out or rewrites a question",
    "tool": "the chat template leaves out or rewrites the result of a tool",
}


def rewrites(messages: Sequence[Message], answers: Sequence[Answer], texts: Sequence[str]) -> tuple[str, ...]:
    """Remarks on a conversation: its messages, its answers as they are trained, and the texts of its examples."""
    remarks = [remark for answer in answers if answer.message.weight != 0 for remark in _of_answer(answer)]
    squeezed = [_squeezed(text) for text in texts]
    for message in messages:
        if message.role != "assistant" and not any(_holds(text, message.content) for text in squeezed):
            remarks.append(CONTEXT[message.role])
    return tuple(dict.fromkeys(remarks))


def _of_answer(answer: Answer) -> Iterator[str]:
    message, span = answer.message, answer.text[answer.start : answer.end]
    squeezed = _squeezed(span)
    if answer.unseen:
        yield (
            f"the prompt to answer ends in {answer.unseen[-40:]!r}, which does not stand before an answer that is "
            "trained"
        )
    thoughts, texts = _parts(message)
    if not all(_squeezed(thought) in squeezed for thought in thoughts):
        yield THINKING
    if not all(text.strip() in span for text in texts):
        yield TEXT
    elif not all(text in span for text in texts):
        yield BLANKS
    yield from _of_calls(message, squeezed)


def _parts(message: Message) -> tuple[list[str], list[str]]:
    """The thoughts and the texts of an answer; thinking may stand between tags in its content."""
    thoughts = [message.reasoning] if message.reasoning else []
    inside, closed, rest = message.content.partition("</think>")
    if not closed:
        return thoughts, [message.content]
    before, _, thought = inside.rpartition("<think>")
    return [*thoughts, thought], [before, rest]


def _of_calls(message: Message, squeezed: str) -> Iterator[str]:
    names = [_squeezed(call.name) for call in message.tool_calls]
    words = [word for call in message.tool_calls for word in _words(json.loads(call.arguments))]
    if any(squeezed.count(name) < names.count(name) for name in names) or not all(
        _holds(squeezed, word) for word in words
    ):
        yield CALLS
        return
    text = _squeezed(_parts(message)[1][-1])
    after = squeezed.rfind(text) + len(text) if text else 0
    places = [squeezed.find(name, after) for name in dict.fromkeys(names)]
    if -1 in places or places != sorted(places):
        yield ORDER


def _words(value: Any) -> Iterator[str]:
    """Texts and whole numbers inside the arguments of a call, which every form of calls shows."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _words(item)
    elif isinstance(value, list):
        for item in value:
            yield from _words(item)
    elif isinstance(value, str | int) and not isinstance(value, bool):
        yield str(value)


def _holds(squeezed: str, text: str) -> bool:
    """Whether a text stands there, plainly or as a JSON or Python string."""
    forms = (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    return any(_squeezed(form) in squeezed for form in forms)


def _squeezed(text: str) -> str:
    """Without blanks and backslashes, which templates and the forms of calls add and take."""
    return _LOOSE.sub("", text)


_LOOSE = re.compile(r"[\s\\]+")
