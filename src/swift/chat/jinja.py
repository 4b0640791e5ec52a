"""The tokenizer's own chat template through the interface of the registered ones."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from swift.chat import agent, calls
from swift.chat.types import Conversation, Message, Segment, ToolCall
from swift.chat.weights import LossScale
from swift.core.errors import SwiftError

Span = tuple[int, int]
"""Where an answer stands in a text: its first character and the one after its last."""


class JinjaTemplate:
    """Renders with `tokenizer.apply_chat_template` and finds out which characters are answers.

    A template is a black box, so answers are found by rendering the conversation up to each of them: with the opening
    of the answer, and with the answer. What the second text has more is the answer.
    """

    name = "jinja"

    def __init__(
        self,
        tokenizer: Any,
        *,
        system: str | None = None,
        tools_format: str | None = None,
        loss_scale: LossScale | None = None,
        options: Mapping[str, Any] | None = None,
    ):
        """`system` stands in for a missing system turn; `options` are variables of the template, as enable_thinking.

        Raises SwiftError when the tokenizer has no chat template.
        """
        if not tokenizer.chat_template:
            raise SwiftError(
                "the tokenizer has no chat template",
                where="--template_type jinja",
                next="name a registered template with --template_type (docs/supported-models.md lists them)",
            )
        self.tokenizer = tokenizer
        self.source: str = tokenizer.get_chat_template(tools=[{}])
        self.default_system = system or None
        self.loss_scale = loss_scale
        self.options = dict(options or {})
        self.native_tools = tools_format is None and re.search(r"\btools\b", self.source) is not None
        self.tools = self._tool_format(tools_format)
        self.specials = tuple(sorted(filter(None, tokenizer.get_added_vocab()), key=len, reverse=True))
        self.suffix = self._suffix()

    def render(
        self, conversation: Conversation, *, inference: bool = False, last_only: bool = False
    ) -> list[list[Segment]]:
        """The examples of a conversation. There are several where the template rewrites earlier answers.

        With `inference`, the prompt to answer. Raises SwiftError with the row's origin when the template refuses it.
        """
        row = _Row(self, conversation)
        if inference:
            return [[Segment(row.prompt())]]
        examples = self._examples(row)
        if last_only:
            examples = [(text, spans[-1:]) for text, spans in examples[-1:]]
        return [self._segments(text, spans) for text, spans in examples]

    def parse_reply(self, text: str) -> Message:
        """A generated answer as a message: its thinking, its text and its tool calls."""
        return agent.parse_reply(text, self.tools)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The text that ends an answer."""
        return tuple(filter(None, ("".join(map(str, self.suffix)).strip(),)))

    def facts(self) -> dict[str, Any]:
        """What decides the text, as JSON."""
        kept = {"default_system": self.default_system, "tools": self.tools.name, "options": self.options}
        return {"template": self.source, "native_tools": self.native_tools, **kept}

    def _examples(self, row: _Row) -> list[tuple[str, list[_Answer]]]:
        """Texts with their answers, each answer trained once.

        From the last answer backwards: a text also trains the earlier answers that it keeps as they were rendered when
        they were the last. Answers it rewrites (Qwen3 drops their thinking) are trained in a text of their own.
        """
        answers = [row.answer(place) for place, message in enumerate(row.messages) if message.role == "assistant"]
        if not answers:
            return [(row.text(len(row.messages)), [])]
        left = answers
        examples: list[tuple[str, list[_Answer]]] = []
        while left:
            whole = row.whole() if left is answers else left[-1].text
            kept = [answer for answer in left if whole.startswith(answer.text[: answer.end])]
            # The end of the whole text can differ from the last answer's own, when a tool's result follows it.
            kept = kept if left is answers or kept else left[-1:]
            if not kept or left is answers and kept[-1] is not left[-1]:
                whole, kept = left[-1].text, [answer for answer in left if left[-1].keeps(answer)]
            examples.append((whole, kept))
            left = [answer for answer in left if answer not in kept]
        return examples[::-1]

    def _segments(self, text: str, answers: Sequence[_Answer]) -> list[Segment]:
        segments, position = [], 0
        for answer in answers:
            weight = 1.0 if answer.weight is None else answer.weight
            segments.append(Segment(text[position : answer.start]))
            trained = text[answer.start : answer.end]
            if weight and self.loss_scale is not None:
                parts = self.loss_scale.split(answer.query, trained)
                segments += [Segment(part, scale * weight) for part, scale in parts]
            else:
                segments.append(Segment(trained, weight))
            position = answer.end
        segments.append(Segment(text[position:]))
        return [segment for segment in segments if segment.content]

    def _tool_format(self, chosen: str | None) -> agent.ToolFormat:
        if self.native_tools:
            return agent.ToolFormat("native", lambda tools: "", lambda made: "", calls.reader_of(self.source), "turn")
        # A result inside the answer would need to be found in the text again, so it becomes a turn.
        return replace(agent.FORMATS[chosen or "react_en"], results="turn", stop=())

    def _suffix(self) -> list[str | tuple[int, ...]]:
        """What the template writes behind an answer, up to and with the last special token."""
        said = "a closing word"
        try:
            text = self.apply([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": said}])
        except _Refusal:
            return []
        after = text.rpartition(said)[2]
        return [after[: self.trained_end(after, 0)]] if after.strip() else []

    def trained_end(self, text: str, start: int) -> int:
        """The end of the answer that begins at `start`: blanks behind its last special token are the template's own."""
        bare = text.rstrip()
        return len(bare) if len(bare) > start and bare.endswith(self.specials) else len(text)

    def opening_end(self, common: str, at_least: int) -> int:
        """Where the opening of an answer ends that two texts have in common: behind a special token or a line end."""
        marks = [common.rfind(special) + len(special) for special in self.specials if special in common]
        return max([at_least, common.rfind("\n") + 1, *marks])

    def apply(self, messages: list[dict[str, Any]], tools: Any = None, **options: Any) -> str:
        """The rendered text. Raises `_Refusal` with the template's own words."""
        from jinja2 import TemplateError

        try:
            return self.tokenizer.apply_chat_template(
                messages, tools=tools or None, tokenize=False, **{**self.options, **options}
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise _Refusal(str(error)) from error


class _Refusal(Exception):
    """The template cannot render these messages."""


@dataclass(frozen=True)
class _Answer:
    """An answer in the text of the conversation up to it."""

    text: str
    start: int
    end: int
    weight: float | None
    query: str

    def keeps(self, earlier: _Answer) -> bool:
        """Whether this text begins with the earlier answer's text."""
        return self.text.startswith(earlier.text[: earlier.end])


class _Row:
    """One conversation in the form that chat templates take."""

    def __init__(self, template: JinjaTemplate, conversation: Conversation):
        self.template = template
        self.conversation = conversation
        self.messages = list(self._prepared())
        self.tools = list(conversation.tools) if template.native_tools else []

    def prompt(self) -> str:
        """The text up to the answer to come; an answer at the end is gone on with."""
        if self.messages and self.messages[-1].role == "assistant":
            return self.text(len(self.messages), continue_final_message=True)
        return self.text(len(self.messages), add_generation_prompt=True)

    def whole(self) -> str:
        """The text of all messages."""
        return self.text(len(self.messages))

    def answer(self, place: int) -> _Answer:
        """The answer at `place` in the text up to and with it."""
        opened = self.text(place, add_generation_prompt=True) if place else ""
        text = self.text(place + 1)
        start = len(opened)
        if not text.startswith(opened):
            # The opening says more than the finished answer, as `<think>` that the template drops again.
            before = self.text(place)
            common = _common(opened, text)
            start = self.template.opening_end(common, len(before) if common.startswith(before) else 0)
        asked = [m.content for m in self.messages[:place] if m.role == "user"]
        weight = self.messages[place].weight
        return _Answer(text, start, self.template.trained_end(text, start), weight, asked[-1] if asked else "")

    def text(self, count: int, **options: Any) -> str:
        """The first `count` messages rendered. Raises SwiftError with the row's origin when the template refuses."""
        refusal: _Refusal | None = None
        # Most templates want arguments as an object, some (DeepSeek) as the JSON text they paste.
        for as_object in (True, False):
            try:
                plain = [_plain(message, as_object) for message in self.messages[:count]]
                return self.template.apply(plain, self.tools, **options)
            except _Refusal as error:
                refusal = error
            if not any(message.tool_calls for message in self.messages[:count]):
                break
        origin = self.conversation.origin
        roles = " ".join(message.role for message in self.messages[:count])
        raise SwiftError(
            f"the chat template refuses the row: {refusal}",
            where=None if origin is None else str(origin),
            why=f"its roles are: {roles[:200]}",
            next="mend the row, or choose a registered template with --template_type",
        )

    def _prepared(self) -> list[Message]:
        """The messages with the system text in force, and with tools as text where the template has no place."""
        messages = list(self.conversation.messages)
        system = self.template.default_system
        if messages and messages[0].role == "system":
            system = messages.pop(0).content or None
        fmt = self.template.tools
        if self.conversation.tools and not self.template.native_tools:
            described = fmt.describe(self.conversation.tools)
            system = described if system is None else f"{system}\n\n{described}"
        if not self.template.native_tools:
            messages = [self._as_text(message, fmt) for message in messages]
        return [Message("system", system), *messages] if system is not None else messages

    def _as_text(self, message: Message, fmt: agent.ToolFormat) -> Message:
        if message.role == "tool":
            return Message("user", f"Observation: {message.content}")
        if message.tool_calls:
            (written,) = fmt.interleave([replace(message, reasoning=None)])
            return replace(written, reasoning=message.reasoning)
        return message


def _common(one: str, other: str) -> str:
    length = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


def _plain(message: Message, as_object: bool) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning is not None:
        plain["reasoning_content"] = message.reasoning
    if message.tool_calls:
        plain["tool_calls"] = [_plain_call(call, as_object) for call in message.tool_calls]
        if not message.content:
            # A call without words: templates that look at the content ask whether it is there.
            plain["content"] = None
    return plain


def _plain_call(call: ToolCall, as_object: bool) -> dict[str, Any]:
    arguments: Any = call.arguments
    if as_object:
        try:
            arguments = json.loads(call.arguments)
        except ValueError:
            arguments = call.arguments
    named = {"type": "function", "function": {"name": call.name, "arguments": arguments}}
    return named if call.id is None else {"id": call.id, **named}
