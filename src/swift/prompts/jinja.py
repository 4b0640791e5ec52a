"""The tokenizer's own chat template through the interface of the registered ones."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from swift.prompts import tool_calls, tool_formats
from swift.prompts.chat_template import ChatTemplate
from swift.prompts.loss_scale import LossScale
from swift.prompts.rewrites import rewrites
from swift.prompts.spans import Answer, Rendered, examples
from swift.prompts.tool_results import join_results
from swift.prompts.types import Conversation, Example, Message, Segment


class JinjaTemplate:
    """What a row says is put into the form its chat template takes; `spans.py` finds the answers in its text."""

    name = "jinja"

    def __init__(
        self,
        tokenizer: Any,
        *,
        system: str | None = None,
        tools_format: str | None = None,
        loss_scale: LossScale | None = None,
    ):
        """`system` stands in for a missing system turn.

        Raises SwiftError when the tokenizer has no chat template.
        """
        self.chat_template = ChatTemplate(tokenizer)
        self.default_system = system or None
        self.loss_scale = loss_scale
        traits = self.chat_template.traits
        self.native_tools = tools_format is None and traits.tools
        self.tools = _tool_format(self.chat_template, self.native_tools, tools_format)
        self.suffix: list[str | tuple[int, ...]] = [traits.end] if traits.end else []

    def render(
        self,
        conversation: Conversation,
        *,
        inference: bool = False,
        last_only: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> list[Example]:
        """The examples of a conversation. There are several where the template rewrites earlier answers.

        With `inference`, the prompt to answer. `options` are variables of the template, such as enable_thinking.
        Raises SwiftError with the row's origin when the template refuses it.
        """
        tools = conversation.tools if self.native_tools else ()
        row = Rendered(self.chat_template, self._prepared(conversation), tools, options or {}, conversation.origin)
        if inference:
            return [Example([Segment(row.prompt())])]
        answers = [row.answer(place) for place, message in enumerate(row.messages) if message.role == "assistant"]
        if last_only:
            answers = answers[-1:]
        trained = examples(row.whole(), answers)
        remarks = rewrites(row.messages, answers, [text for text, _ in trained])
        return [Example(self._segments(text, kept), remarks) for text, kept in trained]

    def parse_reply(self, text: str) -> Message:
        """A generated answer as a message: its thinking, its text and its tool calls."""
        return tool_formats.parse_reply(text, self.tools)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The text that ends an answer."""
        return tuple(filter(None, (self.chat_template.traits.end.strip(),)))

    def facts(self) -> dict[str, Any]:
        """What decides the text, as JSON."""
        kept = {"default_system": self.default_system, "tools": self.tools.name, "native_tools": self.native_tools}
        chat_template = self.chat_template
        if chat_template.traits.image_parts:
            kept["image_parts"] = True
        day = {"today": str(chat_template.day or datetime.date.today())} if chat_template.dated else {}
        return {"template": chat_template.source, **kept, **day}

    def on(self, day: datetime.date) -> JinjaTemplate:
        """The same template on another day, for what must not change from one day to the next."""
        other = copy.copy(self)
        other.chat_template = self.chat_template.on(day)
        return other

    def _prepared(self, conversation: Conversation) -> list[Message]:
        """The messages with the system text in force, and with tools as text where the template has no place."""
        traits = self.chat_template.traits
        messages = list(conversation.messages)
        system = self.default_system
        if messages and messages[0].role == "system":
            system = messages.pop(0).content or None
        if not traits.reasoning:
            messages = [replace(m, content=tool_formats.with_reasoning(m), reasoning=None) for m in messages]
        if not self.native_tools:
            messages = self._as_text(join_results(messages))
            if conversation.tools:
                described = self.tools.describe(conversation.tools)
                if traits.system:
                    system = described if system is None else f"{system}\n\n{described}"
                else:
                    messages = tool_formats.in_first_question(messages, described)
        return [Message("system", system), *messages] if system is not None else messages

    def _as_text(self, messages: Sequence[Message]) -> list[Message]:
        """Calls as text of the assistant, results as text of the user; a question that follows a result joins it."""
        turns: list[Message] = []
        after_result = False
        for message in messages:
            if message.role == "tool":
                turns.append(Message("user", f"Observation: {message.content}"))
            elif message.role == "user" and after_result:
                turns[-1] = Message("user", f"{turns[-1].content}\n{message.content}")
            elif message.tool_calls:
                (written,) = self.tools.interleave([replace(message, reasoning=None)])
                turns.append(replace(written, reasoning=message.reasoning))
            else:
                turns.append(message)
            after_result = message.role == "tool"
        return turns

    def _segments(self, text: str, answers: Sequence[Answer]) -> list[Segment]:
        segments, position = [], 0
        for answer in answers:
            segments.append(Segment(text[position : answer.start]))
            segments += self._weighted(text[answer.start : answer.end], answer)
            position = answer.end
        segments.append(Segment(text[position:]))
        return [segment for segment in segments if segment.content]

    def _weighted(self, trained: str, answer: Answer) -> list[Segment]:
        weight = 1.0 if answer.message.weight is None else answer.message.weight
        if not weight or self.loss_scale is None:
            return [Segment(trained, weight)]
        end = self.chat_template.traits.end
        end = end if trained.endswith(end) else ""
        given = trained.removesuffix(end) if end else trained
        scaled = [Segment(part, scale * weight) for part, scale in self.loss_scale.split(answer.query, given)]
        return [*scaled, Segment(end, weight)]


def _tool_format(chat_template: ChatTemplate, native: bool, chosen: str | None) -> tool_formats.ToolFormat:
    if native:
        syntax = tool_calls.syntax_of(chat_template.source)
        return tool_formats.ToolFormat("native", _by_itself, _by_itself, syntax, "turn")
    # A result inside the answer would need to be found in the text again, so it becomes a turn.
    return replace(tool_formats.tool_format(chosen or "react_en"), results="turn", write=tool_formats.write_actions)


def _by_itself(_: Any) -> str:
    """Tools and calls that the chat template writes need no text from us."""
    return ""
