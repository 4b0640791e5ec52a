"""One reader for the messages of rows and requests: roles, content, calls, thinking and weights under all their names.

What a message says is read or its key is handed back: nothing vanishes on the way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from swift.prompts.bad_row import BadRow
from swift.prompts.types import Message, Role, ToolCall
from swift.prompts.values import a_list, literal, text

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "ai": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
    "ipython": "tool",
}
CALLS = ("function_call", "tool_call")
"""Roles whose text is a tool call written as JSON."""
CALL_KEYS = ("tool_calls", "function_call", "tool_call")
REASONING = "reasoning_content"
"""The thinking of an answer, in a message or in a column beside it."""
THINKING = (REASONING, "reasoning", "thinking", "think", "thought", "thoughts")
WEIGHTS = ("weight", "loss", "loss_weight", "loss_scale", "loss_mask", "train", "trained", "training", "trainable")
"""How much an answer counts; true is 1, false is 0."""
MASKS = ("masked",)
"""Flags that mean the opposite: true leaves the answer out of the loss."""
MAX_WEIGHT = 1e6
"""What a sum of losses in single precision bears."""
ARGUMENTS = ("arguments", "parameters", "args", "input")
RESULTS = ("tool_result", "tool_response")
"""Types of content parts that are results of tools."""
RESULT_IDS = ("tool_call_id", "tool_use_id", "call_id")
_THOUGHT = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)
"""Thinking in front of an answer, and the rest."""
MEDIA_TAGS = {"images": "<image>", "videos": "<video>", "audios": "<audio>"}


@dataclass(frozen=True)
class Beside:
    """A medium that a content part only stands for, as the rows of TRL have it: the row has it in a column."""

    number: int | None
    """Which one of the column, from 0; None is the next."""


@dataclass
class Aside:
    """What stands in messages besides their text: media of content parts by kind, and keys that nobody reads."""

    media: dict[str, list[Any]] = field(default_factory=dict)
    """Links, or `Beside`."""
    unread: set[str] = field(default_factory=set)
    beside: bool = False
    """Whether media of content parts may stand in a column of the row."""

    def leave(self, item: Mapping[str, Any], read: Container[str], key: str) -> None:
        """Keep the keys of `item` that are not `read` and say something; `key` is its place in the row."""
        place = re.sub(r"\[\d+\]", "[]", key)
        self.unread |= {f"{place}.{name}" for name, value in item.items() if name not in read and _says(value)}


def role(value: Any, key: str) -> Role:
    """The role behind any of its usual names, in any case. Raises BadRow for an unknown one."""
    known = ROLES.get(_plain(value)) if isinstance(value, str) else None
    if known is None:
        raise BadRow("unknown role", key=key, expected="system, user, assistant or tool", value=value)
    return known


def _plain(role: str) -> str:
    return role.strip().lower()


def results_apart(item: Any, key: str) -> list[tuple[str, Any]]:
    """Turns with their places in the row: results of tools that are parts of a turn, as Anthropic has them, one each.

    What else the turn says follows them. Every other turn stays as it is.
    """
    parts = item.get("content") if isinstance(item, Mapping) else None
    speaker = ROLES.get(_plain(str(item.get("role")))) if isinstance(item, Mapping) else None
    if not isinstance(parts, list | tuple) or speaker not in ("user", "tool"):
        return [(key, item)]
    places = [number for number, part in enumerate(parts) if isinstance(part, Mapping) and part.get("type") in RESULTS]
    if not places:
        return [(key, item)]
    turns: list[tuple[str, Any]] = []
    for number in places:
        result = {**parts[number], "role": "tool", "content": parts[number].get("content") or ""}
        silent = {"type"} if result.get("is_error") else {"type", "is_error"}
        given = {name: value for name, value in result.items() if name not in silent}
        turns.append((f"{key}.content[{number}]", given))
    left = [part for number, part in enumerate(parts) if number not in places]
    return [*turns, (key, {**item, "content": left})] if left else turns


def read_message(item: Any, key: str, aside: Aside, *, empty: bool = False) -> Message:
    """A turn as `role`/`content` or `from`/`value`, with all that OpenAI and other tools add to it.

    `key` is its place in the row; media and keys that nobody reads go to `aside`. Questions and answers that say
    nothing are allowed only where `empty` is, or where the answer is not trained. Raises BadRow.
    """
    if not isinstance(item, Mapping):
        raise BadRow("wrong type", key=key, expected="an object with role and content", value=item)
    role_key, content_key = ("role", "content") if "role" in item else ("from", "value")
    if item.get(content_key) is None:
        content_key = next((name for name in ("content", "value") if item.get(name) is not None), content_key)
    if role_key not in item:
        raise BadRow("missing key", key=f"{key}.role", expected="system, user, assistant or tool", value=sorted(item))
    speaker = role(item[role_key], f"{key}.{role_key}")
    given, where, read = item.get(content_key), f"{key}.{content_key}", {role_key, content_key}
    content = _Content()
    if _plain(item[role_key]) in CALLS:
        if isinstance(given, str) and (thought := _THOUGHT.match(given)):
            content.thinking.append(thought[1].strip())
            given = thought[2]
        content.calls += tool_calls(given if isinstance(given, list | dict) else text(given, where), where, aside)
    elif given is not None:
        content.add(given, where, aside)
    if speaker == "assistant":
        read |= _read_answer(item, key, content, aside)
    elif content.calls or content.thinking:
        raise BadRow("wrong type", key=where, expected=f"no calls and no thinking in a {speaker} turn", value=given)
    identity = name = None
    if speaker == "tool":
        read |= {*RESULT_IDS, "name"}
        identity = next((_identity(item[one]) for one in RESULT_IDS if item.get(one) is not None), None)
        name = item["name"] if isinstance(item.get("name"), str) else None
    weight = _weight(item, key)
    if speaker == "assistant" or not weight:
        read |= {*WEIGHTS, *MASKS}
    written = "".join(content.texts)
    empty = empty or (speaker == "assistant" and weight == 0 and given is not None)
    if not content.calls and (given is None or speaker in ("user", "assistant")) and not (empty or written.strip()):
        raise BadRow("empty value", key=where, expected="some text", value=written if content.texts else given)
    aside.leave(item, read, key)
    reasoning = "\n".join(content.thinking) or None
    written = without_thinking(written, reasoning, where)
    return Message(speaker, written, tuple(content.calls), reasoning, weight, identity, name)


def without_thinking(written: str, reasoning: str | None, key: str) -> str:
    """The text of an answer without the thinking in front of it, where the same stands beside it: it counts once.

    Raises BadRow where the two differ.
    """
    thought = _THOUGHT.match(written) if reasoning else None
    if reasoning is None or thought is None:
        return written
    if thought[1].strip() not in ("", reasoning.strip()):
        raise BadRow("thinking twice", key=key, expected="no other thinking than that beside it", value=thought[1])
    return thought[2].lstrip("\n")


def _says(value: Any) -> bool:
    """Whether a value that nobody reads would have said something: columns of Parquet are full of nulls."""
    return value is not None and value not in ("", [], {})


def spoken(speaker: Any, speaker_key: str, written: str, key: str, aside: Aside) -> Message:
    """A text and who says it; under a role such as `function_call` the text is a tool call. Raises BadRow."""
    who = role(speaker, speaker_key)
    return Message(who, "", tool_calls(written, key, aside)) if _plain(speaker) in CALLS else Message(who, written)


def _read_answer(item: Mapping[str, Any], key: str, content: _Content, aside: Aside) -> set[str]:
    """Calls, thinking and refusal that stand beside the text of an answer; the keys that were read."""
    for name in CALL_KEYS:
        calls = tool_calls(item.get(name), f"{key}.{name}", aside)
        known = [(call.name, json.loads(call.arguments)) for call in content.calls]
        content.calls += [call for call in calls if (call.name, json.loads(call.arguments)) not in known]
    for name in THINKING:
        if item.get(name) is not None:
            thought = _Content()
            thought.add(item[name], f"{key}.{name}", aside)
            written = "".join((*thought.texts, *thought.thinking))
            if written and written not in content.thinking:
                content.thinking.append(written)
    read = {*CALL_KEYS, *THINKING}
    if isinstance(item.get("refusal"), str) and not "".join(content.texts).strip():
        content.texts = [item["refusal"]]
    return read | {"refusal"} if item.get("refusal") == "".join(content.texts) else read


@dataclass
class _Content:
    """Text, thinking and calls of one message, as its parts are read."""

    texts: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)

    after_text: str = ""
    """The text before, where nothing has come in between."""

    def add(self, value: Any, key: str, aside: Aside) -> None:
        """Text, or content parts of OpenAI and Anthropic; media go to `aside` and leave their tag in the text.

        Two parts of text are joined by a line break, as vLLM joins them, where no white space parts them already.
        """
        if not isinstance(value, list):
            self.texts.append(text(value, key, empty=True))
            return
        for number, part in enumerate(value):
            where = f"{key}[{number}]"
            if isinstance(part, str):
                self._add_text(part)
            elif isinstance(part, Mapping):
                self._add_part(part, where, aside)
            else:
                raise _no_part(part, where)

    def _add_text(self, written: str) -> None:
        apart = self.after_text[-1:].isspace() or written[:1].isspace()
        self.texts += ["\n", written] if written and self.after_text and not apart else [written]
        self.after_text = written or self.after_text

    def _add_part(self, part: Mapping[str, Any], where: str, aside: Aside) -> None:
        kind = part.get("type", "text" if "text" in part else None)
        names: tuple[str, ...] = ()
        if kind in _TEXTS:
            names = _TEXTS[kind]
            self._add_text(text(_first(part, names), f"{where}.{names[0]}", empty=True))
        elif kind in ("thinking", "reasoning"):
            names = ("thinking", "reasoning", "text")
            thought = _Content()
            thought.add(_first(part, names), f"{where}.{kind}", aside)
            self.thinking.append("".join(thought.texts))
        elif kind in ("tool_use", "tool_call"):
            self.calls += tool_calls(part, where, aside)
            return
        elif kind in _MEDIA:
            medium, names = _MEDIA[kind]
            link = _link(_first(part, names))
            if link is None and aside.beside:
                names = (*names, "index")
                number = part.get("index")
                aside.media.setdefault(medium, []).append(Beside(number if type(number) is int else None))
            else:
                at = f"{where}.{names[0]}"
                frames = link if medium == "videos" and isinstance(link, list | tuple) and link else None
                shown = frames and [text(frame, f"{at}[{number}]") for number, frame in enumerate(frames)]
                aside.media.setdefault(medium, []).append(shown or text(link, at))
            self.texts.append(MEDIA_TAGS[medium])
            self.after_text = ""
        else:
            raise _no_part(part, where)
        aside.leave(part, {"type", *names}, where)


def _no_part(part: Any, where: str) -> BadRow:
    return BadRow("wrong type", key=where, expected="a text, image, video or audio part", value=part)


_TEXTS = {"text": ("text",), "input_text": ("text",), "output_text": ("text",), "refusal": ("refusal", "text")}
_MEDIA = {
    "image_url": ("images", ("image_url", "url")),
    "input_image": ("images", ("image_url", "url")),
    "image": ("images", ("image", "url", "path", "source")),
    "video_url": ("videos", ("video_url", "url")),
    "video": ("videos", ("video", "url", "path")),
    "audio_url": ("audios", ("audio_url", "url")),
    "audio": ("audios", ("audio", "url", "path")),
    "input_audio": ("audios", ("input_audio",)),
}
MEDIA_PARTS = {name: kind for name, (kind, _) in _MEDIA.items()}
"""Types of content parts that are media, and of which kind."""


def _first(part: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((part[name] for name in names if part.get(name) is not None), None)


def _link(value: Any) -> Any:
    """The address inside `{"url": …}`, or OpenAI's `{"data": …, "format": …}` and Anthropic's `{"data": …,
    "media_type": …}` as one. What the content is says itself; some clients write all of an address as `data`."""
    if not isinstance(value, Mapping):
        return value
    data, form, kind = (value.get(name) for name in ("data", "format", "media_type"))
    if data is None:
        return value.get("url")
    if not isinstance(data, str) or data.startswith("data:"):
        return data
    return f"data:{kind or (f'audio/{form}' if form else '')};base64,{data}"


def tool_calls(value: Any, key: str, aside: Aside) -> tuple[ToolCall, ...]:
    """Calls as OpenAI writes them (`function: {name, arguments}`), or flat (`{name, arguments}`), one or a list."""
    given = literal(value, key, "JSON with name and arguments")
    if given is None:
        return ()
    calls = given if isinstance(given, list | tuple) else [given]
    return tuple(_tool_call(call, f"{key}[{number}]", aside) for number, call in enumerate(calls))


def _tool_call(call: Any, key: str, aside: Aside) -> ToolCall:
    if not isinstance(call, Mapping):
        raise BadRow("wrong type", key=key, expected="an object with name and arguments", value=call)
    inner = call.get("function")
    function = inner if isinstance(inner, Mapping) else call
    name = inner if isinstance(inner, str) else function.get("name")
    if not isinstance(name, str) or not name:
        raise BadRow("wrong type", key=f"{key}.name", expected="the name of a tool", value=name)
    given = next((key for key in ARGUMENTS if function.get(key) is not None), ARGUMENTS[0])
    if function is not call:
        aside.leave(function, ("name", given), f"{key}.function")
    aside.leave(call, {"id", "type", "index", "function", *RESULT_IDS, *((function is call) * ("name", given))}, key)
    written = arguments(function.get(given), f"{key}.arguments")
    return ToolCall(name, written, _identity(_first(call, ("id", *RESULT_IDS))))


def arguments(value: Any, key: str) -> str:
    """The arguments of a call as the text of a JSON object. Nothing at all means `{}`. Raises BadRow for no JSON."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return "{}"
    try:
        written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
        if isinstance(json.loads(written, parse_constant=_no_json), dict):
            return written
    except (ValueError, TypeError, RecursionError):
        pass
    raise BadRow("arguments are no JSON", key=key, expected="a JSON object, or its text", value=value)


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _identity(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _weight(item: Mapping[str, Any], key: str) -> float | None:
    """The product of all that is said about how much a message counts in the loss, None when nothing is."""
    weight: float | None = None
    for name in (*WEIGHTS, *MASKS):
        value = item.get(name)
        if value is None:
            continue
        if not isinstance(value, bool | int | float) or not 0 <= value <= MAX_WEIGHT:
            raise BadRow(
                "wrong weight",
                key=f"{key}.{name}",
                expected=f"true, false or a number from 0 to {MAX_WEIGHT:.0e}",
                value=value,
            )
        factor = float(not value) if name in MASKS else float(value)
        weight = factor if weight is None else weight * factor
    return weight


def tools(row: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """The row's tool declarations: one object or a list, all or each as JSON text; older files call it `functions`."""
    key = "functions" if row.get("tools") is None and row.get("functions") is not None else "tools"
    given = literal(row.get(key), key, "a list")
    alone = isinstance(given, Mapping) and ("function" in given or "name" in given)
    declared = [
        literal(tool, f"{key}[{number}]", "an object with a name")
        for number, tool in enumerate([given] if alone else a_list(given, key))
    ]
    for number, tool in enumerate(declared):
        if not isinstance(tool, dict):
            raise BadRow("wrong type", key=f"{key}[{number}]", expected="an object with a name", value=tool)
    return tuple(map(_declared, declared))


def _declared(tool: dict[str, Any]) -> dict[str, Any]:
    """A declaration with its schema under OpenAI's name, where it stands under that of Anthropic or of MCP."""
    name = next((name for name in ("input_schema", "inputSchema") if isinstance(tool.get(name), dict)), None)
    if name is None or tool.get("parameters") is not None:
        return tool
    return {("parameters" if key == name else key): value for key, value in tool.items() if key != "parameters"}
