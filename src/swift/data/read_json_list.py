"""Rows of one JSON list, or of objects over several lines, in a file that is read whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from swift.data.compression import DAMAGE, damaged, open_file
from swift.data.raw_row import RawRow, encoded
from swift.prompts.bad_row import BadRow

BOM = b"\xef\xbb\xbf"


class _Element(NamedTuple):
    line: int
    start: int
    end: int
    fault: BadRow | None = None


def json_list(path: Path) -> Iterator[RawRow]:
    """The elements in order. A row's `line` is the one it begins on, or its number where several begin on one line."""
    text, damage = _read_whole(path)
    elements = list(_elements(text, damage))
    own_lines = len({element.line for element in elements}) == len(elements)
    for number, (line, start, end, fault) in enumerate(elements, 1):
        yield RawRow(line if own_lines else number, encoded(text[start:end]), start, fault)


def _elements(text: str, damage: BadRow | None) -> Iterator[_Element]:
    """Where the elements are. After one that does not parse, reading goes on at the next that does."""
    decode = json.JSONDecoder().raw_decode
    gap = re.compile(r"[\s,]*")
    listed = text.lstrip()[:1] == "["
    position = text.find("[") + 1 if listed else 0
    line, counted, whole = 1, 0, True
    while True:
        position = gap.match(text, position).end()  # type: ignore[union-attr]
        if position >= len(text) or text[position] == "]":
            break
        line += text.count("\n", counted, position)
        counted = position
        try:
            _, end = decode(text, position)
            whole = True
            yield _Element(line, position, end)
        except (ValueError, RecursionError) as broken:
            whole, end = False, _next_element(text, position)
            cut = text[position:end].rstrip().rstrip(",")
            fault = BadRow("broken JSON", expected="a JSON value", value=f"{_reason(broken)}: {cut}")
            yield _Element(line, position, position + len(cut), fault)
        position = end
    ended = position < len(text)
    behind = text[position + 1 :].lstrip()
    line += text.count("\n", counted, len(text) - len(behind) if behind else position)
    if damage:
        yield _Element(line, position, position, damage)
    elif behind:
        start = len(text) - len(behind)
        for number, lost in enumerate(behind.split("\n"), line):
            if lost.strip():
                fault = BadRow("broken JSON", expected="nothing behind the list", value=lost.strip())
                yield _Element(number, start, start + len(lost), fault)
            start += len(lost) + 1
    elif listed and not ended and whole:
        fault = BadRow("broken JSON", expected="] at the end of the list", value="")
        yield _Element(line, position, position, fault)


def _reason(broken: Exception) -> str:
    return broken.msg if isinstance(broken, json.JSONDecodeError) else str(broken)


def _next_element(text: str, position: int) -> int:
    """Where the next object starts a line at the indentation of the broken one, or the end of the text."""
    start = text.rfind("\n", 0, position) + 1
    indent = text[start:position]
    brace = text.find(f"\n{indent}{{", position) if not indent.strip() else text.find("{", position + 1)
    return brace + 1 if brace >= 0 else len(text)


def _read_whole(path: Path) -> tuple[str, BadRow | None]:
    """The whole file as text; bytes that are not UTF-8 survive as surrogates, so that only their row is lost."""
    fault = None
    pieces = []
    with open_file(path) as file:
        try:
            while piece := file.read1(1 << 20):
                pieces.append(piece)
        except DAMAGE as broken:
            fault = damaged(broken)
    return b"".join(pieces).removeprefix(BOM).decode("utf-8", "surrogateescape"), fault
