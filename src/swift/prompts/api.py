"""The public door to prompts: `swift.get_template` encodes rows in the form of the 2.5 release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from swift.catalog import load_catalog
from swift.core.errors import SwiftError
from swift.core.log import once
from swift.plan.prompt import JINJA, PromptPlan
from swift.prompts.bad_row import BadRow
from swift.prompts.encode import Encoder, TooLong, build_encoder
from swift.prompts.grounding import objects
from swift.prompts.images import without_answer
from swift.prompts.media_links import out_of_text
from swift.prompts.messages import (
    MEDIA_TAGS,
    REASONING,
    Aside,
    read_message,
    results_apart,
    spoken,
    tools,
    without_thinking,
)
from swift.prompts.template import DataTemplate
from swift.prompts.tool_results import in_order_of_calls
from swift.prompts.types import Conversation, Media, Message


def get_template(
    template_type: str,
    tokenizer: Any,
    *,
    default_system: str | None = None,
    max_length: int | None = None,
    truncation_strategy: Literal["delete", "truncation_left"] = "delete",
    tools_prompt: str = "react_en",
    loss_scale: str | Path | Mapping[str, Any] | None = None,
) -> RowTemplate:
    """A registered template, or `jinja` for the tokenizer's own chat template, ready to encode rows.

    `loss_scale` is None, "default", "alpha-umi", "agent-flan", a path or a dict of rules. A template with its own form
    for tools keeps it unless `tools_prompt` is react_zh or toolbench. Raises SwiftError for an unknown template and for
    a system text that the template has no place for.
    """
    catalog = load_catalog()
    native = template_type == JINJA or catalog.templates.get(template_type).tools_format not in _GENERAL
    plan = PromptPlan(
        template_type=template_type,
        system=default_system,
        tools_format=None if native and tools_prompt == "react_en" else tools_prompt,
        max_length=None if max_length is None or max_length < 0 else max_length,
        truncation_strategy=truncation_strategy,
        loss_scale=str(loss_scale) if isinstance(loss_scale, Path) else loss_scale,
    )
    return RowTemplate(build_encoder(plan, tokenizer, catalog, template_media=True))


_GENERAL = ("react_en", "react_zh", "toolbench")


class RowTemplate:
    """Encodes rows such as `{"query": …, "response": …, "history": [[…, …]], "system": …}` or `{"messages": […]}`."""

    def __init__(self, encoder: Encoder):
        self.encoder = encoder

    def encode(self, row: Mapping[str, Any], inference: bool = False) -> dict[str, Any] | None:
        """`input_ids`, `labels` (None where there is no answer) and, with loss-scale rules, `loss_scale`.

        Media and objects of a row stand there as the template writes them: the tokens of an image are not counted, as
        no model is there, and some templates hold a number below zero in its place.
        None for a row that truncation drops. With `inference` the answer of the row is left out. Where a chat template
        makes several examples of a row, this is the last one; `encoder.encode` gives all. Raises SwiftError for a row
        that is not understood.
        """
        conversation = conversation_of(row)
        template = self.encoder.template
        if isinstance(template, DataTemplate) and template.entry.multimodal:
            conversation = _with_files_of_text(conversation)
        messages = conversation.messages
        answered = bool(messages) and messages[-1].role == "assistant"
        if inference and answered:
            conversation, answered = without_answer(conversation), False
        try:
            encoded = self.encoder.encode(conversation, inference=not answered)[-1]
        except TooLong:
            return None
        for remark in encoded.rewrites:
            once(f"get_template: {remark}")
        fields: dict[str, Any] = {"input_ids": encoded.input_ids, "labels": encoded.labels if answered else None}
        if encoded.loss_scale is not None:
            fields["loss_scale"] = encoded.loss_scale
        return fields


def _with_files_of_text(conversation: Conversation) -> Conversation:
    """The conversation with the files that questions name in their text, `<img>a.png</img>`. Raises SwiftError."""
    messages, files = out_of_text(conversation.messages)
    for kind in files:
        if conversation.media.of(kind):
            raise SwiftError(f"the row has {kind} in its text and in `{kind}`", next="write them in one of the two")
    media = replace(conversation.media, **{kind: tuple(links) for kind, links in files.items()})
    return replace(conversation, messages=messages, media=media)


def conversation_of(row: Mapping[str, Any]) -> Conversation:
    """A row of query/response/history or of messages as a conversation. Raises SwiftError naming the wrong field."""
    if not isinstance(row, Mapping) or (row and not _KEYS.intersection(row)):
        raise SwiftError(
            "the row has none of the keys query, response, history and messages",
            why=repr(row)[:80],
            next="rows in other formats are read from files, with --dataset",
        )
    aside = Aside()
    listed = bool(row.get("messages"))
    try:
        turns = _listed(row["messages"], aside) if listed else _rounds(row, aside)
        messages = in_order_of_calls(list(turns.values()), list(turns))
        declared = tools(row)
    except BadRow as fault:
        raise SwiftError(str(fault)) from None
    system = _text(row.get("system"), "system")
    read = _ALWAYS | ({"messages"} if listed else _ROUNDS)
    if system is not None and messages and messages[0].role == "system":
        read -= {"system"}
    elif system is not None:
        messages = [Message("system", system), *messages]
    for key in sorted(aside.unread.union(str(key) for key in row if key not in read and row[key] is not None)):
        once(f"get_template: nothing reads the key {key}")
    return Conversation(tuple(messages), declared, _media(row, aside))


_ROUNDS = frozenset(("query", "response", "history", "query_role", "history_roles", REASONING))
_KEYS = frozenset(("query", "response", "history", "messages"))
_ALWAYS = frozenset(("system", "tools", "functions", "objects", *MEDIA_TAGS))


def _text(value: Any, field: str) -> str | None:
    """A text or null. Raises SwiftError for all else."""
    if value is None or isinstance(value, str):
        return value
    raise SwiftError(f"{field} is not a text", why=repr(value)[:80])


def _rounds(row: Mapping[str, Any], aside: Aside) -> dict[str, Message]:
    """The turns of query, response and history by their places. An empty question of the user is none."""
    history = row.get("history") or []
    roles = row.get("history_roles") or [("user", "assistant")] * len(history)
    if len(roles) != len(history):
        raise SwiftError(f"history_roles has {len(roles)} entries, history {len(history)}")
    given: list[tuple[str, str, Any]] = []
    for place, (pair, speakers) in enumerate(zip(history, roles, strict=True)):
        if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise SwiftError(f"history[{place}] is not a pair of texts", why=repr(pair)[:80])
        if not isinstance(speakers, Sequence) or len(speakers) != 2:
            raise SwiftError(f"history_roles[{place}] is not a pair of roles", why=repr(speakers)[:80])
        given += [(f"history[{place}][{side}]", pair[side], speakers[side]) for side in (0, 1)]
    given.append(("query", _text(row.get("query"), "query") or "", row.get("query_role") or "user"))
    response = _text(row.get("response"), "response")
    if response is not None:
        given.append(("response", response, "assistant"))
    turns = {key: spoken(speaker, key, text, key, aside) for key, text, speaker in given if text or speaker != "user"}
    if response is not None:
        thinking = _text(row.get(REASONING), REASONING) or None
        answer = without_thinking(turns["response"].content, thinking, "response")
        turns["response"] = replace(turns["response"], content=answer, reasoning=thinking)
    return turns if response is not None or "query" in turns else {**turns, "query": Message("user", "")}


def _listed(given: Any, aside: Aside) -> dict[str, Message]:
    if not isinstance(given, list | tuple):
        raise SwiftError("messages is not a list", why=repr(given)[:80])
    turns = [turn for place, item in enumerate(given) for turn in results_apart(item, f"messages[{place}]")]
    return {key: read_message(item, key, aside, empty=True) for key, item in turns}


def _media(row: Mapping[str, Any], aside: Aside) -> Media:
    def listed(kind: str) -> tuple[Any, ...]:
        paths = row.get(kind) or ()
        given = (*aside.media.get(kind, ()), *((paths,) if isinstance(paths, str) else paths))
        return tuple("" if path is None else tuple(path) if isinstance(path, list) else path for path in given)

    try:
        return Media(listed("images"), listed("videos"), listed("audios"), objects(row.get("objects")))
    except BadRow as fault:
        raise SwiftError(str(fault)) from None
