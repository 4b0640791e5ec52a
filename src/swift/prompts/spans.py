"""Where the answers stand in the text of a chat template, without any marks in the template.

A template is a black box. An answer is found by rendering the conversation up to it twice: with the opening of the
answer, and with the answer. What the second text has more is the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swift.core.errors import SwiftError
from swift.prompts.chat_template import ChatTemplate, Refusal
from swift.prompts.types import Message, Origin


@dataclass(frozen=True)
class Answer:
    """An answer in the text of the conversation up to it: its first character, and the one after its last."""

    text: str
    start: int
    end: int
    message: Message
    query: str
    unseen: str = ""
    """The end of the prompt to answer that does not stand before the answer in this text, such as `<think>`."""

    def kept_in(self, text: str) -> bool:
        """Whether `text` has the answer, and all before it, as they are here."""
        return text.startswith(self.text[: self.end])


def examples(whole: str, answers: list[Answer]) -> list[tuple[str, list[Answer]]]:
    """Texts with the answers they train, each answer once.

    The whole text trains every answer it keeps as it was written. Answers it has rewritten (Qwen3 drops the thinking of
    earlier ones) are trained in the text that ended with them.
    """
    renderings: list[tuple[str, list[Answer]]] = []
    text, left = whole, answers
    while left:
        kept = [answer for answer in left if answer.kept_in(text)]
        if kept:
            renderings.append((text, kept))
        left = [answer for answer in left if not answer.kept_in(text)]
        text = left[-1].text if left else text
    return renderings[::-1] or [(whole, [])]


class Rendered:
    """One conversation under one chat template."""

    def __init__(
        self,
        chat_template: ChatTemplate,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
        origin: Origin | None,
    ):
        self.chat_template = chat_template
        self.messages = messages
        self.tools = tools
        self.options = options
        self.origin = origin
        self._texts: dict[tuple[int, bool], str] = {}

    def whole(self) -> str:
        """The text of all messages."""
        return self._text(len(self.messages))

    def prompt(self) -> str:
        """The text up to the answer to come; an answer at the end is gone on with."""
        if self.messages and self.messages[-1].role == "assistant":
            return self._render(self.messages, continue_final_message=True)
        return self._text(len(self.messages), opened=True)

    def answer(self, place: int) -> Answer:
        """The answer of the message at `place`, in the text up to and with it."""
        opened = self._text(place, opened=True) if place else ""
        text = self._text(place + 1)
        start, unseen = len(opened), ""
        if not text.startswith(opened):
            start = self._start_by_comparison(place, text)
            if not text.startswith(self._text(place)) and not opened.startswith(text[:start]):
                # Finished conversations leave out what the prompt says, as the system text of Mistral Nemo. The prompt
                # is what the model sees when it answers, so it is what the answer is trained on.
                text, start = opened + text[start:], len(opened)
            else:
                unseen = opened[_common(opened, text) :]
        queries = [message.content for message in self.messages[:place] if message.role == "user"]
        return Answer(
            text=text,
            start=start,
            end=self.chat_template.trained_end(text, start),
            message=self.messages[place],
            query=queries[-1] if queries else "",
            unseen=unseen,
        )

    def _start_by_comparison(self, place: int, text: str) -> int:
        """Where an answer begins whose opening says more than its finished text, as a `<think>` that is dropped again.

        The text of another answer is the same up to there.
        """
        given = self.messages[place].content.lstrip()
        other = Message("assistant", "¤" if not given.startswith("¤") else "§")
        compared = self._render([*self.messages[:place], other])
        return _common(text, compared)

    def _text(self, count: int, opened: bool = False) -> str:
        key = (count, opened)
        if key not in self._texts:
            options = {"add_generation_prompt": True} if opened else {}
            self._texts[key] = self._render(self.messages[:count], **options)
        return self._texts[key]

    def _render(self, messages: Sequence[Message], **options: Any) -> str:
        """The text of some messages. Raises SwiftError with the row's origin when the template refuses them."""
        try:
            return self.chat_template.write(messages, self.tools, **{**self.options, **options})
        except Refusal as refusal:
            roles = " ".join(message.role for message in messages)
            raise SwiftError(
                f"the chat template refuses the row: {refusal}",
                where=None if self.origin is None else str(self.origin),
                why=f"its roles are: {roles[:200]}",
                next="mend the row, or choose a registered template with --template_type",
            ) from refusal


def _common(text: str, other: str) -> int:
    """How many characters two texts share at their start."""
    pairs = zip(text, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(text), len(other)))
