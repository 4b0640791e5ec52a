"""The part of Go's text/template that Modelfiles use, to see what Ollama would send to the model.

Actions: if / else if / else / end, range $i, $_ := .List, $x := …, $x = …, fields, eq, len, slice, and, or, not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

_ACTION = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)
_WORD = re.compile(r'"[^"]*"|\(|\)|[^\s()]+')


def render(template: str, data: dict[str, Any]) -> str:
    """The text of a template; `data` are its fields."""
    pieces: list[str | list[str]] = []
    position = 0
    for match in _ACTION.finditer(template):
        text = template[position : match.start()]
        pieces += [text.rstrip() if match[1] else text, [match[2]]]
        position = match.end()
        assert not match[3], "right trim is not used"
    pieces.append(template[position:])
    run = _Run(pieces, data)
    text = run.block(data, {"$": data})
    assert run.place == len(pieces)
    return text


class _Run:
    def __init__(self, pieces: Sequence[str | list[str]], data: dict[str, Any]):
        self.pieces = pieces
        self.data = data
        self.place = 0
        self.assigned: dict[str, Any] = {}
        """Variables that were given another value, which holds outside their block too."""

    def block(self, dot: Any, names: dict[str, Any], silent: bool = False) -> str:
        """Text up to the `end` or `else` that closes this block, which is left to the caller."""
        out = ""
        while self.place < len(self.pieces):
            piece = self.pieces[self.place]
            if isinstance(piece, str):
                out += "" if silent else piece
                self.place += 1
                continue
            action = piece[0]
            if action == "end" or action.startswith("else"):
                return out
            self.place += 1
            if action.startswith("if "):
                out += self._if(action[3:], dot, names, silent)
            elif action.startswith("range "):
                out += self._range(action[6:], dot, names, silent)
            elif ":=" in action:
                name, _, value = action.partition(":=")
                names[name.strip()] = None if silent else _value(value, dot, names)
            elif " = " in action:
                name, _, value = action.partition(" = ")
                if not silent:
                    self.assigned[name.strip()] = _value(value, dot, names)
            elif not silent:
                out += _text(_value(action, dot, {**names, **self.assigned}))
        return out

    def _if(self, condition: str, dot: Any, names: dict[str, Any], silent: bool) -> str:
        taken = not silent and bool(_value(condition, dot, {**names, **self.assigned}))
        out = self.block(dot, dict(names), silent or not taken)
        done = silent or taken
        while (action := self.pieces[self.place][0]) != "end":
            self.place += 1
            holds = not done and (
                action == "else" or bool(_value(action.removeprefix("else if "), dot, {**names, **self.assigned}))
            )
            out += self.block(dot, dict(names), not holds)
            done = done or holds
        self.place += 1
        return out

    def _range(self, clause: str, dot: Any, names: dict[str, Any], silent: bool) -> str:
        variables, _, source = clause.partition(":=")
        index, item_name = (name.strip() for name in variables.split(","))
        items = [] if silent else _value(source, dot, names)
        start, out = self.place, ""
        for number, item in enumerate(items):
            self.place = start
            out += self.block(item, {**names, index: number, item_name: item})
        if not items:
            self.block(dot, dict(names), silent=True)
        assert self.pieces[self.place] == ["end"]
        self.place += 1
        return out


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "eq": lambda a, b: a == b,
    "len": len,
    "slice": lambda items, start: items[start:],
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
    "not": lambda value: not value,
}


def _value(text: str, dot: Any, names: dict[str, Any]) -> Any:
    words = _WORD.findall(text.strip())
    value, rest = _pipeline(words, dot, names)
    assert rest == []
    return value


def _pipeline(words: list[str], dot: Any, names: dict[str, Any]) -> tuple[Any, list[str]]:
    head, *rest = words
    if head not in _FUNCTIONS:
        return _operand(words, dot, names)
    arguments = []
    while rest and rest[0] != ")":
        value, rest = _operand(rest, dot, names)
        arguments.append(value)
    return _FUNCTIONS[head](*arguments), rest


def _operand(words: list[str], dot: Any, names: dict[str, Any]) -> tuple[Any, list[str]]:
    head, *rest = words
    if head == "(":
        value, rest = _pipeline(rest, dot, names)
        assert rest[0] == ")"
        return value, rest[1:]
    if head.startswith('"'):
        return head[1:-1], rest
    if head.isdigit():
        return int(head), rest
    if head in ("true", "false"):
        return head == "true", rest
    name, *fields = head.split(".")
    value = names[name] if name else dot
    for field in filter(None, fields):
        value = value[field]
    return value, rest


def _text(value: Any) -> str:
    """As Ollama's types print themselves: tools and arguments are JSON, without blanks and with lower-case names."""
    return (
        json.dumps(_lower(value), ensure_ascii=False, separators=(",", ":")) if isinstance(value, dict) else str(value)
    )


def _lower(value: Any) -> Any:
    return {key.lower(): _lower(each) for key, each in value.items()} if isinstance(value, dict) else value
