"""Tool calls as models with a native format write them, read back from their replies."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from swift.prompts.types import ToolCall

Read = Callable[[str], tuple[str, tuple[ToolCall, ...]]]

_DECODER = json.JSONDecoder()


def end_of_json(text: str, start: int) -> int | None:
    """Where the JSON object or list that begins at `start` ends, or None when there is none."""
    if text[start : start + 1] not in ("{", "["):
        return None
    try:
        return _DECODER.raw_decode(text, start)[1]
    except ValueError:
        return None


_HERMES = re.compile(r"<tool_call>\s*")
_HERMES_END = re.compile(r"\s*</tool_call>")


def read_hermes(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """`<tool_call>{"name": …, "arguments": …}</tool_call>`, as Qwen and Hermes write it; text may stand around them."""
    blocks, given, place = [], [], 0
    while opened := _HERMES.search(text, place):
        given.append(text[place : opened.start()])
        # The mark of the end may stand inside the arguments, so the JSON says where it ends.
        start, end = opened.end(), end_of_json(text, opened.end())
        if end is None:
            end = start + len(text[start:].partition("</tool_call>")[0])
        blocks.append(text[start:end].strip())
        closed = _HERMES_END.match(text, end)
        place = closed.end() if closed else end
    found = [call for block in blocks if (call := _named(_json(block)))]
    if not found or len(found) < len(blocks):
        return text, ()
    before, behind = given[0], "\n".join(filter(None, map(str.strip, [*given[1:], text[place:]])))
    if not behind:
        return before.removesuffix("\n"), tuple(found)
    gap = "\n" if before and not before.endswith("\n") else ""
    return f"{before}{gap}{behind}", tuple(found)


def read_llama3(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """One or more JSON objects with name and parameters and nothing else, as Llama 3.1 writes them."""
    rest = text.strip().removeprefix("<|python_tag|>").strip()
    found = []
    while rest:
        end = end_of_json(rest, 0)
        value = None if end is None else _json(rest[:end])
        items = value if isinstance(value, list) else [value]
        made = [call for item in items if (call := _named(item))]
        if end is None or len(made) != len(items):
            return text, ()
        found += made
        rest = rest[end:].lstrip().removeprefix(";").lstrip()
    return ("", tuple(found)) if found else (text, ())


def read_glm4(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """The name on one line and the arguments as a JSON object below it, as GLM-4 writes it."""
    found = []
    content = ""
    for part in text.split("<|assistant|>"):
        match = re.fullmatch(r"\s*(?:(.*?)\n)?([A-Za-z_][\w.-]*)[ \t]*\n\s*(\{.*\})\s*", part, re.DOTALL)
        if match is None or not isinstance(_json(match.group(3)), dict):
            return text, ()
        content = content or match.group(1) or ""
        found.append(ToolCall(match.group(2), match.group(3)))
    return content, tuple(found)


def read_deepseek(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """The call blocks of DeepSeek V3 and R1 (arguments in a fenced block) and of V3.1 (arguments bare)."""
    pattern = (
        r"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>(?P<old>[^\n]+)\n```json\n(?P<fenced>.*?)\n```"
        r"|(?P<new>.*?)<｜tool▁sep｜>(?P<bare>.*?))\s*(?:<｜tool▁call▁end｜>|\Z)"
    )
    found = [
        ToolCall((match["old"] or match["new"]).strip(), (match["fenced"] or match["bare"]).strip())
        for match in re.finditer(pattern, text, re.DOTALL)
    ]
    if not found:
        return text, ()
    return re.split(r"<｜tool▁calls?▁begin｜>", text, maxsplit=1)[0].removesuffix("\n"), tuple(found)


def read_harmony(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """The messages to `functions.…` as gpt-oss writes them; what it says on the final channel is the content."""
    pattern = r"to=functions\.(?P<name>[\w.-]+)[^{\[]*?<\|message\|>(?P<arguments>.*?)(?:<\|call\|>|<\|end\|>|\Z)"
    found = [ToolCall(match["name"], match["arguments"].strip()) for match in re.finditer(pattern, text, re.DOTALL)]
    final = re.search(r"<\|channel\|>final[^<]*<\|message\|>(.*?)(?:<\|return\|>|<\|end\|>|\Z)", text, re.DOTALL)
    if final:
        return final.group(1), tuple(found)
    return ("", tuple(found)) if found else (text, ())


def read_mistral(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """`[TOOL_CALLS]` and a JSON list, as Mistral writes it."""
    content, marker, rest = text.partition("[TOOL_CALLS]")
    value = _json(rest.strip()) if marker else None
    items = value if isinstance(value, list) else [value]
    found = [call for item in items if (call := _named(item))]
    return (content.rstrip(), tuple(found)) if found and len(found) == len(items) else (text, ())


def read_nothing(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """For templates without a known format: all of the reply is text."""
    return text, ()


_MARKS: tuple[tuple[str, Read], ...] = (
    ("<｜tool▁call▁begin｜>", read_deepseek),
    ("<|channel|>", read_harmony),
    ("<tool_call>", read_hermes),
    ("[TOOL_CALLS]", read_mistral),
    ("<|observation|>", read_glm4),
    ('"parameters"', read_llama3),
)


def reader_of(chat_template: str) -> Read:
    """The reader for the format that a Jinja chat template writes calls in, told by its markers."""
    return next((read for mark, read in _MARKS if mark in chat_template), read_nothing)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _named(value: Any) -> ToolCall | None:
    """A call from `{"name": …, "arguments" or "parameters": …}`, or None for anything else."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return ToolCall(value["name"], text)
