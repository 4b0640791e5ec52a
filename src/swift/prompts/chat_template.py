"""The tokenizer's chat template as a black box: messages become text, and a few probes tell what it can do."""

from __future__ import annotations

import copy
import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from swift.core.errors import SwiftError
from swift.prompts.messages import MEDIA_TAGS
from swift.prompts.tool_results import join_results
from swift.prompts.types import Message, ToolCall


class Refusal(Exception):
    """The template cannot render these messages."""


class ChatTemplate:
    """Renders with `tokenizer.apply_chat_template`."""

    def __init__(self, tokenizer: Any):
        """Raises SwiftError when the tokenizer has no chat template."""
        if not tokenizer.chat_template:
            raise SwiftError(
                "the tokenizer has no chat template",
                where="--template_type jinja",
                next="name a registered template with --template_type (docs/supported-models.md lists them)",
            )
        self.tokenizer = tokenizer
        self.source: str = tokenizer.get_chat_template(tools=[{}])
        self.dated = "strftime_now" in self.source
        self.day: datetime.date | None = None
        self.specials = tuple(sorted(tokenizer.get_added_vocab(), key=len, reverse=True))
        self.traits = Traits()
        self.traits = _probe(self)

    def write(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), **options: Any) -> str:
        """The text of messages, in the first form of calls that the template takes. Raises Refusal if none is."""
        # Most templates want arguments as an object, some (DeepSeek) as the JSON text they paste; a few want ids, and
        # those that insist on alternating roles want the results of parallel calls in one turn.
        forms = [(True, False), (False, False), (True, True), (False, True)]
        joined = join_results(messages)
        refusals: list[Refusal] = []
        for given in [messages, joined] if len(joined) < len(messages) else [messages]:
            for as_object, named in forms if any(message.tool_calls for message in messages) else forms[:1]:
                try:
                    return self._apply(plain(given, as_object=as_object, named=named), tools, options)
                except Refusal as refusal:
                    refusals.append(refusal)
        raise refusals[0]

    def _apply(self, messages: list[dict[str, Any]], tools: Sequence[Any], options: Mapping[str, Any]) -> str:
        from jinja2 import TemplateError

        parts, images = self.traits.parts, self.traits.image_parts
        listed = [_in_parts(message, images=images) for message in messages] if parts else messages
        try:
            text = self.tokenizer.apply_chat_template(listed, tools=list(tools) or None, tokenize=False, **options)
        except (TemplateError, TypeError, ValueError) as error:
            raise Refusal(str(error)) from error
        return self._redated(text)

    def on(self, day: datetime.date) -> ChatTemplate:
        """The same template on another day, for what must not change from one day to the next."""
        other = copy.copy(self)
        other.day = day
        return other

    def _redated(self, text: str) -> str:
        """Templates ask for the date themselves; another day can only be written over it."""
        if self.day is None or not self.dated:
            return text
        today = datetime.date.today()
        for form in ("%Y-%m-%d", "%d %b %Y", "%d %B %Y", "%B %d, %Y"):
            text = text.replace(today.strftime(form), self.day.strftime(form))
        return text

    def trained_end(self, text: str, start: int) -> int:
        """The end of the answer that begins at `start`: blanks behind its last special token are the template's own."""
        bare = text.rstrip()
        return len(bare) if len(bare) > start and bare.endswith(self.specials) else len(text)


@dataclass(frozen=True)
class Traits:
    """What a template does, told by rendering a few messages with it."""

    parts: bool = False
    """Wants the content as a list of parts, as multimodal templates do."""
    image_parts: bool = False
    """Writes our own tag for a part that is an image, and may put other blanks around it than around text."""
    system: bool = True
    reasoning: bool = False
    """Writes the thinking of an answer that is kept apart from its text."""
    tools: bool = False
    """Describes tools and writes calls."""
    end: str = ""
    """What stands behind an answer, up to and with its last special token."""


TAG = MEDIA_TAGS["images"]
_ASKED, _SAID = Message("user", "a first word"), Message("assistant", "a closing word")
_CALLED = Message("assistant", "", tool_calls=(ToolCall("probe_call", "{}"),))
_TOOL = {"type": "function", "function": {"name": "probe_tool", "description": "", "parameters": {}}}


def _probe(template: ChatTemplate) -> Traits:
    def shows(word: str, *messages: Message, tools: Sequence[Mapping[str, Any]] = ()) -> bool:
        return word in _try(template, *messages, tools=tools)

    if not shows(_ASKED.content, _ASKED):
        template.traits = Traits(parts=True)
        if not shows(_ASKED.content, _ASKED):
            template.traits = Traits()
        else:
            template.traits = Traits(parts=True, image_parts=True)
            seen = f"{TAG}{_ASKED.content}"
            template.traits = Traits(parts=True, image_parts=shows(seen, Message("user", seen)))
    after = _try(template, _ASKED, _SAID).rpartition(_SAID.content)[2]
    # Templates may describe tools and yet drop the calls of a row; those are not trusted with either.
    tools = re.search(r"\btools\b", template.source) is not None
    return replace(
        template.traits,
        end=after[: template.trained_end(after, 0)] if after.strip() else "",
        system=shows("a rule", Message("system", "a rule"), _ASKED),
        reasoning=shows("a thought", _ASKED, replace(_SAID, reasoning="a thought")),
        tools=tools and all(shows(word, _ASKED, _CALLED, tools=[_TOOL]) for word in ("probe_call", "probe_tool")),
    )


def _try(template: ChatTemplate, *messages: Message, tools: Sequence[Mapping[str, Any]] = ()) -> str:
    try:
        return template.write(messages, tools)
    except Refusal:
        return ""


def _in_parts(message: Mapping[str, Any], *, images: bool) -> dict[str, Any]:
    """The message with a list of parts as its content: its text, or (`images`) what stands around each tag in it."""
    texts = message["content"].split(TAG) if images else [message["content"]]
    parts: list[dict[str, str]] = []
    for number, text in enumerate(texts):
        parts += [{"type": "image"}] if number else []
        parts += [{"type": "text", "text": text}] if text or len(texts) == 1 else []
    return {**message, "content": parts}


def plain(messages: Sequence[Message], *, as_object: bool, named: bool) -> list[dict[str, Any]]:
    """Messages as chat templates take them.

    `as_object` gives arguments as an object, else as JSON text; `named` gives each call an id of nine characters if it
    has none, and each result the id and name of its call, which some templates insist on.
    """
    rendered: list[dict[str, Any]] = []
    open_calls: list[ToolCall] = []
    count = 0
    for message in messages:
        item: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.reasoning is not None:
            item["reasoning_content"] = message.reasoning
        if message.tool_calls:
            open_calls = list(message.tool_calls)
            if named:
                open_calls = [replace(call, id=f"call{count + i:05d}") for i, call in enumerate(open_calls)]
                count += len(open_calls)
            item["tool_calls"] = [_plain_call(call, as_object) for call in open_calls]
        elif message.role == "tool" and open_calls:
            call = open_calls.pop(0)
            if named:
                item["name"] = call.name
            if call.id is not None:
                item["tool_call_id"] = call.id
        rendered.append(item)
    return rendered


def _plain_call(call: ToolCall, as_object: bool) -> dict[str, Any]:
    arguments: Any = call.arguments
    if as_object:
        try:
            arguments = json.loads(call.arguments)
        except ValueError:
            arguments = call.arguments
    function = {"type": "function", "function": {"name": call.name, "arguments": arguments}}
    return function if call.id is None else {"id": call.id, **function}
