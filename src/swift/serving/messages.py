"""From OpenAI messages to a conversation, and from there to the prompt's token ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from swift.core.log import log
from swift.prompts.bad_row import BadRow
from swift.prompts.media_links import out_of_text
from swift.prompts.messages import MEDIA_TAGS, Aside, read_message
from swift.prompts.tool_formats import join_observations
from swift.prompts.tool_results import in_order_of_calls
from swift.prompts.types import Conversation, Media, Message
from swift.serving.errors import ApiError
from swift.serving.media import refuse_others
from swift.serving.schema import ChatMessage, ChatRequest
from swift.serving.tools import ToolUse


def conversation(body: ChatRequest, use: ToolUse, *, takes: Sequence[str]) -> tuple[Conversation, str]:
    """The conversation to answer, and the beginning of the answer when the last message is the assistant's own.

    System and developer messages open the conversation as one; two turns of the same side in a row are joined. Raises
    ApiError with the message's place where the order makes no sense.
    """
    turns, media = _turns(body, takes)
    begun = ""
    if turns[-1].role == "assistant":
        if turns[-1].tool_calls:
            raise ApiError(400, "The last message holds tool calls; their results are missing.", param="messages")
        begun = turns.pop().content
    if not any(turn.role in ("user", "tool") for turn in turns):
        raise ApiError(400, "No message of the user to answer.", param="messages")
    return Conversation(tuple(turns), use.tools, media), begun


def answered(body: ChatRequest, use: ToolUse, *, takes: Sequence[str]) -> Conversation:
    """The conversation whose last message is the answer to score. Raises ApiError where there is no such."""
    turns, media = _turns(body, takes)
    if turns[-1].role != "assistant" or not any(turn.role in ("user", "tool") for turn in turns):
        raise ApiError(400, "The messages end with the user's turn and the answer to score.", param="messages")
    return Conversation(tuple(turns), use.tools, media)


def _turns(body: ChatRequest, takes: Sequence[str]) -> tuple[list[Message], Media]:
    aside = Aside()
    turns = _read(body.messages, aside)
    turns, named = out_of_text(turns) if takes else (turns, {})
    given: dict[str, list[Any]] = {kind: [*aside.media.get(kind, []), *named.get(kind, [])] for kind in MEDIA_TAGS}
    media: dict[str, list[Any]] = {
        kind: [tuple(link) if isinstance(link, list) else link for link in given[kind]] for kind in MEDIA_TAGS
    }
    for kind, beside in (("images", body.images), ("videos", body.videos), ("audios", body.audios)):
        media[kind].extend(_links(kind, beside))
    refuse_others(media, body, takes)
    carried = Media(tuple(media["images"]), tuple(media["videos"]), tuple(media["audios"]))
    return list(join_observations(_ordered(turns))), carried


def _links(kind: str, given: Any) -> list[Any]:
    """The addresses of a field; a video may be a list of those of its frames. Raises ApiError for anything else."""
    if given is None:
        return []
    if not isinstance(given, list):
        raise ApiError(400, "Input should be a list of addresses.", param=kind)
    links: list[Any] = []
    for at, link in enumerate(given):
        frames = link if kind == "videos" and isinstance(link, list) and link else [link]
        if not all(isinstance(frame, str) and frame for frame in frames):
            raise ApiError(400, "Input should be an address.", param=f"{kind}[{at}]")
        links.append(tuple(link) if isinstance(link, list) else link)
    return links


def _read(messages: Sequence[ChatMessage], aside: Aside) -> list[Message]:
    """The messages as rows have them, results of tools in the order of the calls they answer."""
    keys = [f"messages[{at}]" for at in range(len(messages))]
    turns = []
    try:
        for key, given in zip(keys, messages, strict=True):
            if given.content is None and given.role != "assistant":
                raise ApiError(400, f"A message of the {given.role} needs content.", param=f"{key}.content")
            if given.role != "assistant" and (given.tool_calls or given.function_call):
                raise ApiError(400, "Only the assistant makes tool calls.", param=f"{key}.tool_calls")
            turn = read_message(given.model_dump(exclude_none=True), key, aside, empty=given.content is not None)
            turns.append(replace(turn, weight=None))
        turns = in_order_of_calls(turns, keys)
    except BadRow as fault:
        message = f"{fault.reason.capitalize()}: expected {fault.expected}, got {fault.value}."
        raise ApiError(400, message, param=fault.key or "messages") from None
    for place in sorted(aside.unread):
        _name_unread(place)
    return turns


@lru_cache(1000)
def _name_unread(place: str) -> None:
    """Say once that requests hold a key which has no effect, at most for the 1000 places that were seen last."""
    log.warning("requests hold a key that is not read: %.100r", place)


def _ordered(turns: Sequence[Message]) -> list[Message]:
    """System messages first and as one, then the turns, those of one side in a row joined by a line break."""
    system = [turn.content for turn in turns if turn.role == "system"]
    ordered: list[Message] = [Message("system", "\n".join(system))] if system else []
    for turn in turns:
        last = ordered[-1] if ordered else None
        if turn.role == "system":
            continue
        if last and turn.role == last.role and turn.role in ("user", "assistant"):
            text = "\n".join(filter(None, (last.content, turn.content)))
            thinking = "\n".join(filter(None, (last.reasoning, turn.reasoning))) or None
            calls = last.tool_calls + turn.tool_calls
            ordered[-1] = replace(last, content=text, tool_calls=calls, reasoning=thinking)
            continue
        if turn.role == "tool" and (last is None or last.role not in ("assistant", "tool")):
            raise ApiError(400, "A tool's result must follow the assistant's call.", param="messages")
        ordered.append(turn)
    if not any(turn.role != "system" for turn in ordered):
        raise ApiError(400, "No message of the user to answer.", param="messages")
    return ordered


def shown(body: BaseModel) -> str:
    """The request on one line, for the log of --verbose."""
    return json.dumps(body.model_dump(exclude_unset=True), ensure_ascii=False)
