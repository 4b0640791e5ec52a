"""Reads the calls out of a reply, piece by piece: what is sure to be text or part of a call is given out at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import regex

from swift.prompts.tool_calls import CallSyntax
from swift.prompts.types import ToolCall

NAME = r"[A-Za-z_][\w.-]*"
"""What a tool may be called where nobody says how the tools are called."""


@dataclass(frozen=True)
class CallPiece:
    """A piece of call number `index`, from 0: its name where it begins, then more and more text of its arguments."""

    index: int
    name: str | None = None
    arguments: str = ""


class CallReader:
    """Takes a reply as it comes and gives out its content and its calls.

    `names` are those of the tools, if known. A reply may think first, between `<think>` and `</think>`, where nothing
    is a call; with `thinking` it begins there. The content is the text without the calls; a line break stands where
    calls stood between two texts.
    """

    def __init__(self, syntax: CallSyntax, names: Sequence[str] = (), *, thinking: bool = False):
        self._syntax = syntax
        self._marks = _marks(syntax, tuple(names))
        self._text = ""
        self._at = 0
        """Everything before it is given out."""
        self._last = False
        self._state = self._thought if thinking else self._opening
        self._brackets = _Brackets(0)
        self._call = -1
        self._ends = self._marks.ends
        self._broken_off = False
        """A call stands between the content before and what may follow."""
        self._line_ended = True
        self._content: list[str] = []
        self._pieces: list[CallPiece] = []

    def feed(self, text: str, *, last: bool = False) -> tuple[str, list[CallPiece]]:
        """More of the reply; `last` says that no more comes. -> (content, pieces of calls) that are sure by now."""
        self._text += text
        self._last = last
        self._content, self._pieces = [], []
        while self._state():
            pass
        return "".join(self._content), self._pieces

    # Each state does one step and says whether another can follow at once.

    def _opening(self) -> bool:
        opened = self._marks.think.match(self._text, partial=not self._last)
        if opened and opened.partial:
            return False
        self._state = self._thought if opened else self._plain
        return True

    def _thought(self) -> bool:
        closed = self._text.find("</think>", max(0, self._at - len("</think>")))
        self._give(len(self._text) if closed < 0 else closed + len("</think>"))
        if closed < 0:
            return False
        self._text, self._at = self._text[self._at :], 0  # the reply itself begins here
        self._state = self._plain
        return True

    def _plain(self) -> bool:
        mark = self._marks.begin.search(self._text, self._at, partial=not self._last)
        self._give(mark.start() if mark else len(self._text))
        if mark is None or mark.partial:
            return False
        if "left_out" in mark.groupdict() and mark["left_out"] is not None:
            self._at = mark.end()
            return True
        return self._begin(mark)

    def _begin(self, mark: Any) -> bool:
        name = mark.groupdict().get("name")
        if name is not None:
            self._at = mark.end()
            self._start(name)
            self._state = self._value
            return True
        return self._object(mark)

    def _object(self, mark: Any) -> bool:
        """An object begins behind `mark` that may hold a name and arguments."""
        start = mark.end()
        head = self._marks.head.match(self._text, start, partial=not self._last)
        if head and not head.partial:
            self._start(json.loads(f'"{head["name"]}"'))
            self._at, self._state = head.end(), self._arguments
            self._brackets = _Brackets(self._at, depth=1)
            return True
        if head:
            return False
        end = _Brackets(start).close(self._text, len(self._text))
        if end is not None:
            return self._whole_object(mark, end)
        named = self._marks.cut.match(self._text, start) if self._last else None
        if named:
            self._start(json.loads(f'"{named["name"]}"'))
            self._at = len(self._text)
            return False
        possible = self._marks.other_order.match(self._text, start, partial=True)
        if self._last or (self._syntax.known_names and not possible):
            return self._no_call(mark)
        return False

    def _whole_object(self, mark: Any, end: int) -> bool:
        call = named_call(_json(self._text[mark.end() : end]))
        if call is None or not self._marks.known(call.name):
            return self._no_call(mark)
        self._start(call.name)
        self._pieces.append(CallPiece(self._call, arguments=call.arguments))
        self._at, self._state = end, self._behind
        return True

    def _no_call(self, mark: Any) -> bool:
        """What `mark` opened is text after all."""
        self._give(mark.end() + 1)
        self._state = self._plain
        return True

    def _value(self) -> bool:
        """The arguments begin; a call without any has none."""
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1
        fence = self._marks.fence and self._marks.fence.match(self._text, self._at, partial=not self._last)
        if fence and not fence.partial:
            self._at = fence.end()
        elif fence or (self._at == len(self._text) and not self._last):
            return False
        if self._at == len(self._text):
            self._pieces.append(CallPiece(self._call, arguments="{}"))
            self._state = self._plain
            return False
        self._brackets = _Brackets(self._at)
        self._state = self._arguments if self._text[self._at] in "{[" else self._bare
        return True

    def _arguments(self) -> bool:
        """The JSON of the arguments, given out as it comes."""
        limit, interrupted = self._until_interrupt()
        end = self._brackets.close(self._text, limit)
        until = limit if end is None else end
        if until > self._at:
            self._pieces.append(CallPiece(self._call, arguments=self._text[self._at : until]))
            self._at = until
        if end is None and not interrupted:
            return False
        self._state = self._rest_of_object if self._brackets.depth and end is not None else self._behind
        return True

    def _bare(self) -> bool:
        """Arguments that are no JSON: all up to the format's next mark."""
        limit, interrupted = self._until_interrupt()
        if not interrupted and not self._last:
            return False
        self._pieces.append(CallPiece(self._call, arguments=self._text[self._at : limit].strip() or "{}"))
        self._at, self._state = limit, self._behind
        return True

    def _until_interrupt(self) -> tuple[int, bool]:
        if self._marks.interrupt is None:
            return len(self._text), False
        mark = self._marks.interrupt.search(self._text, self._at, partial=not self._last)
        return (len(self._text), False) if mark is None else (mark.start(), not mark.partial)

    def _rest_of_object(self) -> bool:
        """What else the object of the call holds (an id) is no part of the call."""
        end = self._brackets.close(self._text, len(self._text))
        self._at = len(self._text) if end is None else end
        if end is not None:
            self._state = self._behind
        return end is not None

    def _behind(self) -> bool:
        """Another call, or what belongs to the one before."""
        if self._marks.more is not None:
            more = self._marks.more.match(self._text, self._at, partial=not self._last)
            if more:
                return False if more.partial else self._object(more)
        while self._ends:
            end = self._ends[0].match(self._text, self._at, partial=not self._last)
            if end and end.partial:
                return False
            self._at = end.end() if end else self._at
            self._ends = self._ends[1:]
        self._state, self._broken_off = self._plain, True
        return True

    def _start(self, name: str) -> None:
        self._call += 1
        self._ends = self._marks.ends
        self._pieces.append(CallPiece(self._call, name))

    def _give(self, end: int) -> None:
        """The text up to `end` is content."""
        text = self._text[self._at : end]
        self._at = max(self._at, end)
        text = text.lstrip() if self._broken_off else text
        if not text:
            return
        if self._broken_off and not self._line_ended:
            text = "\n" + text
        self._broken_off, self._line_ended = False, text.endswith("\n")
        self._content.append(text)


class _Brackets:
    """Follows the brackets of JSON text from `at` on, where it stands `depth` levels deep; strings are left aside."""

    def __init__(self, at: int, depth: int = 0):
        self.depth = depth
        self._floor = depth
        self._at = at
        self._quoted = self._escaped = False

    def close(self, text: str, limit: int) -> int | None:
        """Read on to `limit`: the place behind the bracket that closes the value at `at`, None before it is there.

        Called again it looks for the end of what the value stands in.
        """
        while self._at < limit:
            character = text[self._at]
            self._at += 1
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped = character == "\\"
                self._quoted = character != '"'
            elif character == '"':
                self._quoted = True
            elif character in "{[":
                self.depth += 1
            elif character in "}]":
                self.depth -= 1
                if self.depth <= self._floor:
                    self._floor -= 1
                    return self._at
        return None


class _Marks:
    """The compiled marks of a syntax for tools of certain names."""

    def __init__(self, syntax: CallSyntax, names: tuple[str, ...]):
        self._names = frozenset(names) if syntax.known_names else frozenset()
        self.think = regex.compile(r"\s*<think>")
        name = "|".join(map(regex.escape, names)) if self._names else NAME
        begin = syntax.begin.replace("{name}", name)
        self.begin = regex.compile(f"{begin}|(?P<left_out>{syntax.left_out})" if syntax.left_out else begin)
        self.fence = regex.compile(syntax.fence) if syntax.fence else None
        self.ends = tuple(regex.compile(end) for end in syntax.ends)
        self.more = regex.compile(syntax.more) if syntax.more else None
        self.interrupt = regex.compile(syntax.interrupt) if syntax.interrupt else None
        quoted = name if self._names else r'(?:[^"\\]|\\.)+'
        named = rf'\{{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*"(?P<name>{quoted})"\s*'
        self.head = regex.compile(named + r',\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')
        self.cut = regex.compile(named)
        self.other_order = regex.compile(named + r'(?:\}|,\s*"arguments"\s*:)|\{\s*"(?:arguments|parameters)"\s*:')

    def known(self, name: str) -> bool:
        """Whether a call of `name` is a call."""
        return not self._names or name in self._names


@cache
def _marks(syntax: CallSyntax, names: tuple[str, ...]) -> _Marks:
    return _Marks(syntax, names)


def read_calls(text: str, syntax: CallSyntax, names: Sequence[str] = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """A whole reply as its content and its calls. Text without a call stays as it is."""
    content, pieces = CallReader(syntax, names).feed(text, last=True)
    calls: list[ToolCall] = []
    for piece in pieces:
        if piece.name is not None:
            calls.append(ToolCall(piece.name, ""))
        calls[-1] = ToolCall(calls[-1].name, calls[-1].arguments + piece.arguments)
    return content, tuple(calls)


def named_call(value: Any) -> ToolCall | None:
    """A call from `{"name": …, "arguments" or "parameters": …}`, or None for anything else."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters"))
    if arguments is None:
        return ToolCall(value["name"], "{}")
    return ToolCall(
        value["name"], arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
