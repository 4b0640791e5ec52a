"""Registered templates: a conversation becomes text and token ids, each piece with its weight in the loss."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from swift.catalog import TemplateEntry
from swift.catalog.entries import slots
from swift.core.errors import SwiftError
from swift.prompts import tool_formats
from swift.prompts.loss_scale import LossScale
from swift.prompts.types import Conversation, Example, Message, Origin, Segment

Piece = str | tuple[int, ...]
"""Text, token ids, or (in a compiled template only) a slot as `{{name}}`."""


_DATE = "%d %b %Y"


@dataclass(frozen=True)
class Turn:
    """A question, who asks it (user or tool), and the messages of the answer; None where it is still to come.

    `query` is None for an answer without a question, which is plain text; an empty question is one.
    """

    query: str | None
    role: str
    answer: tuple[Message, ...] | None


class DataTemplate:
    """A template of the catalog made ready for one tokenizer."""

    def __init__(
        self,
        entry: TemplateEntry,
        tokenizer: Any,
        *,
        system: str | None = None,
        tools_format: str | None = None,
        loss_scale: LossScale | None = None,
        today: datetime.date | None = None,
    ):
        """`system` replaces the template's default system text, "" drops it; `today` fills {{today}}.

        Raises SwiftError when the template has no place for `system` or the tokenizer lacks a token it needs.
        """
        self.name = entry.name
        self.entry = entry
        self.loss_scale = loss_scale
        self.tools = tool_formats.tool_format(tools_format or entry.tools_format)
        self.takes_system = entry.system is not None or entry.system_in_prompt is not None
        if system and not self.takes_system:
            raise self._no_system(where="--system")
        self.default_system = (entry.default_system if system is None else system) or None
        self.today = (today or datetime.date.today()).strftime(_DATE)
        resolve = _Resolver(entry.name, tokenizer)
        self.start = resolve.start(entry.start)
        self.prefix = resolve(entry.prefix) or []
        self.system = resolve(entry.system)
        self.prompt = resolve(entry.prompt) or []
        self.tool = resolve(entry.tool) or self.prompt
        self.system_in_prompt = resolve(entry.system_in_prompt)
        self.separator = resolve(entry.separator)
        self.suffix = resolve(entry.suffix) or []
        self.call_end = resolve(entry.call_end) or []

    def render(
        self,
        conversation: Conversation,
        *,
        inference: bool = False,
        last_only: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> list[Example]:
        """The one example this conversation makes, as segments.

        With `inference` an answer at the end is left open, to be gone on with; `last_only` trains the last one alone.
        `options` mean something to Jinja templates only. Raises SwiftError with the row's origin when the template
        cannot express the conversation.
        """
        if conversation.tools and not self.takes_system:
            described = tool_formats.in_first_question(conversation.messages, self.tools.describe(conversation.tools))
            conversation = replace(conversation, messages=tuple(described), tools=())
        turns = list(_turns(conversation, self.tools))
        if len(turns) > 1 and self.separator is None:
            raise self._one_turn_only(len(turns), conversation.origin)
        system = self._system(conversation)
        pieces = _Pieces()
        pieces.extend(self.start)
        in_front = self.prefix if system is None or self.system is None else self.system
        pieces.extend(_fill(in_front, system=system, today=self.today))
        # Under loss-scale rules alone the ends of earlier answers count nothing, as in 2.5.
        ends_count = self.loss_scale is None or any(message.weight is not None for message in conversation.messages)
        for index, turn in enumerate(turns):
            last = index == len(turns) - 1
            parts = self._parts(turn, trained=last or not last_only)
            if turn.query is None and not any(text for text, _, _ in parts):
                continue
            if last:
                pieces.extend(self._before_last(turn, system))
            prompt, inside = self.prompt, False
            if turn.role == "tool":
                weight = self._call_weight(turns[index - 1]) if index and not last_only else 0.0
                pieces.extend(self.call_end, weight)
                prompt, inside = self.tool, weight > 0
            query = self._spelled_out(turn.query, conversation.origin)
            pieces.extend(_fill(prompt, query=query, round=str(index + 1), round0=str(index)), inside_turn=inside)
            for part in parts:
                pieces.add(*part)
            pieces.end_weight = _weight(turn) if ends_count else None
            if not last:
                pieces.extend(self.separator if turns[index + 1].query is not None and self.separator else [])
            elif turn.answer and turn.answer[-1].role == "assistant" and not inference:
                end = self.call_end if self._call_weight(turn) else self.suffix
                pieces.extend(end, _weight(turn))
        return [Example(pieces.segments())]

    def _spelled_out(self, query: str | None, origin: Origin | None) -> str | None:
        """The question that a task of the template stands for, or the one that is there."""
        for task, question in self.entry.tasks.items():
            if query is None or task not in query:
                continue
            if "{{input}}" in question:
                return question.replace("{{input}}", query.replace(task, "").strip())
            if query != task:
                raise SwiftError(
                    f"the task {task} is a whole question, and the text has more",
                    where=_where(origin),
                    next="leave the rest out, or ask in words of your own",
                )
            return question
        return query

    def _call_weight(self, turn: Turn) -> float:
        """The weight of the mark that ends the turn's answer as a call; 0 where the suffix ends it."""
        if not self.call_end or not turn.answer or not turn.answer[-1].tool_calls:
            return 0.0
        return _weight(turn)

    def _before_last(self, turn: Turn, system: str | None) -> Sequence[Piece]:
        if system is None:
            return [self.entry.tool_without_system] if turn.role == "tool" else []
        return list(_fill(self.system_in_prompt or [], system=system))

    def parse_reply(self, text: str) -> Message:
        """A generated answer as a message, with the tool calls it shows."""
        return tool_formats.parse_reply(text, self.tools)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end an answer: its ends as far as they are text, and what the template names beside them."""
        ends = (
            "".join(piece for piece in end if isinstance(piece, str)).strip() for end in (self.suffix, self.call_end)
        )
        return tuple(dict.fromkeys(filter(None, (*ends, *self.entry.stop))))

    def facts(self) -> dict[str, Any]:
        """What decides the text, as JSON."""
        pieces = (self.start, self.prefix, self.system, self.prompt, self.tool, self.system_in_prompt)
        kept = {"default_system": self.default_system, "tools": self.tools.name, "separator": self.separator}
        dated = any("{{today}}" in piece for piece in (*self.prefix, *(self.system or ())) if isinstance(piece, str))
        also: dict[str, Any] = {"today": self.today} if dated else {}
        if self.call_end:
            also["call_end"] = self.entry.call_end
        if self.entry.tasks:
            also["tasks"] = dict(self.entry.tasks)
        return {"template": self.name, "pieces": pieces, "suffix": self.suffix, **kept, **also}

    def on(self, day: datetime.date) -> DataTemplate:
        """The same template on another day, for what must not change from one day to the next."""
        other = copy.copy(self)
        other.today = day.strftime(_DATE)
        return other

    def _system(self, conversation: Conversation) -> str | None:
        first = conversation.messages[0] if conversation.messages else None
        given = first.content if first is not None and first.role == "system" else None
        system = self.default_system if given is None else given or None
        if conversation.tools:
            described = self.tools.describe(conversation.tools)
            system = described if system is None else f"{system}\n\n{described}"
        if system is not None and not self.takes_system:
            raise self._no_system(where=_where(conversation.origin))
        return system

    def _no_system(self, where: str | None) -> SwiftError:
        return SwiftError(
            f"the template {self.name} has no place for a system text",
            where=where,
            next="leave it out, or choose another --template_type",
        )

    def _one_turn_only(self, count: int, origin: Origin | None) -> SwiftError:
        return SwiftError(
            f"the template {self.name} knows one question and one answer, the row has {count} turns",
            where=_where(origin),
            next="split the row, or choose a chat template with --template_type",
        )

    def _parts(self, turn: Turn, *, trained: bool) -> list[tuple[str, float, bool]]:
        """Text, weight and whether it stands inside the turn, for each part of the answer."""
        parts: list[tuple[str, float, bool]] = []
        for message in self.tools.interleave(turn.answer or ()):
            weight = (1.0 if message.weight is None else message.weight) if trained else 0.0
            if message.role == "tool":
                parts.append((message.content, 0.0, True))
            elif weight == 0.0 or self.loss_scale is None:
                parts.append((message.content, weight, False))
            else:
                scaled = self.loss_scale.split(turn.query or "", message.content)
                parts += [(text, scale * weight, False) for text, scale in scaled]
        return parts


class _Pieces:
    """Collects pieces; neighbours of text with the same weight become one, as the tokenizer must see them whole."""

    def __init__(self) -> None:
        self.end_weight: float | None = None
        """The weight of the answer before the pieces to come."""
        self._segments: list[Segment] = []
        self._texts: list[str] = []
        self._weight = 0.0
        self._inside_turn = False
        self._end_weight: float | None = None

    def add(self, content: Piece, weight: float = 0.0, inside_turn: bool = False) -> None:
        if not isinstance(content, str):
            self._flush()
            self._segments.append(Segment(content, weight, inside_turn, self.end_weight))
            return
        if weight != self._weight:
            # An empty answer, too, keeps the text before it and the text behind it apart.
            self._flush()
            self._weight = weight
        if not self._texts:
            self._inside_turn, self._end_weight = inside_turn, self.end_weight
        if content:
            self._texts.append(content)

    def extend(self, pieces: Iterable[Piece], weight: float = 0.0, inside_turn: bool = False) -> None:
        for piece in pieces:
            self.add(piece, weight, inside_turn)

    def segments(self) -> list[Segment]:
        self._flush()
        return self._segments

    def _flush(self) -> None:
        if self._texts:
            self._segments.append(Segment("".join(self._texts), self._weight, self._inside_turn, self._end_weight))
            self._texts = []


class _Resolver:
    """Cuts a template text into pieces and fills the slots that depend on the tokenizer only."""

    def __init__(self, name: str, tokenizer: Any):
        self._name = name
        self._tokenizer = tokenizer

    def __call__(self, text: str | None) -> list[Piece] | None:
        if text is None:
            return None
        pieces: list[Piece] = []
        for place, part in enumerate(slots(text)):
            piece = self._slot(part) if place % 2 else part
            if piece:
                pieces.append(piece)
        return pieces

    def start(self, kind: str | None) -> list[Piece]:
        """What the tokenizer itself puts in front of a text: nothing, its bos, or all of it."""
        if kind is None:
            return []
        added = tuple(self._tokenizer.encode(""))
        bos = self._tokenizer.bos_token_id
        if kind == "bos":
            return [(bos,)] if bos is not None and bos in added else []
        return [added] if added else []

    def _slot(self, name: str) -> Piece:
        if name.startswith("id:"):
            return (int(name[3:]),)
        if name in ("eos", "bos"):
            token = self._tokenizer.eos_token_id if name == "eos" else self._tokenizer.bos_token_id
            if token is None:
                raise SwiftError(
                    f"the template {self._name} needs the {name} token, the tokenizer has none",
                    next=f"set {name}_token in tokenizer_config.json, or choose another --template_type",
                )
            return (token,)
        return f"{{{{{name}}}}}"


def _fill(pieces: Sequence[Piece], **values: str | None) -> Iterator[Piece]:
    """The pieces with values in place of slots. Each slot is a piece of its own, so values are never searched."""
    slotted = {f"{{{{{name}}}}}": value for name, value in values.items()}
    for piece in pieces:
        value = slotted.get(piece, piece) if isinstance(piece, str) else piece
        if value:
            yield value


def _turns(conversation: Conversation, tools: tool_formats.ToolFormat) -> Iterator[Turn]:
    """Questions with their answers. Raises SwiftError with the origin when roles are out of order."""
    messages = conversation.messages
    place = 1 if messages and messages[0].role == "system" else 0
    while place < len(messages):
        message = messages[place]
        query: str | None = None
        role = "user"
        if message.role == "tool":
            end = _end_of(messages, place, "tool")
            query, role = "\n".join(result.content for result in messages[place:end]), "tool"
            place = end
        elif message.role == "user":
            query = message.content
            place += 1
        elif message.role == "system":
            raise _out_of_order(conversation, place, "a system turn must be the first one")
        if place == len(messages):
            yield Turn(query, role, None)
            return
        if messages[place].role != "assistant":
            raise _out_of_order(conversation, place, f"after {messages[place - 1].role} comes assistant")
        end = tools.end_of_answer(messages, place)
        yield Turn(query, role, tuple(messages[place:end]))
        place = end


def _end_of(messages: Sequence[Message], place: int, role: str) -> int:
    while place < len(messages) and messages[place].role == role:
        place += 1
    return place


def _out_of_order(conversation: Conversation, place: int, why: str) -> SwiftError:
    roles = " ".join(message.role for message in conversation.messages)
    return SwiftError(
        f"roles are out of order at message {place + 1} ({conversation.messages[place].role})",
        where=_where(conversation.origin),
        why=f"{why}; the roles are: {roles[:200]}",
    )


def _weight(turn: Turn) -> float:
    """The weight of the last message of the turn's answer."""
    weight = turn.answer[-1].weight if turn.answer else None
    return 1.0 if weight is None else weight


def _where(origin: Origin | None) -> str | None:
    return None if origin is None else str(origin)
