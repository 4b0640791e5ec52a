"""From OpenAI messages to a conversation, and from there to the prompt's token ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from pydantic import BaseModel

from swift.prompts.tool_formats import join_observations
from swift.prompts.types import Conversation, Media, Message, ToolCall
from swift.serving.errors import ApiError
from swift.serving.schema import ChatMessage, ChatRequest, ContentPart
from swift.serving.tools import ToolUse

_TAGS = {"image": "<image>", "video": "<video>", "audio": "<audio>"}


def conversation(body: ChatRequest, use: ToolUse, *, is_multimodal: bool) -> tuple[Conversation, str]:
    """The conversation to answer, and the beginning of the answer when the last message is the assistant's own.

    System and developer messages open the conversation as one; two turns of the same side in a row are joined. Raises
    ApiError with the message's place where the order makes no sense.
    """
    media: dict[str, list[str]] = {kind: [] for kind in _TAGS}
    turns = [_message(at, given, media) for at, given in _in_order_of_calls(body.messages)]
    for kind, given in (("image", body.images), ("video", body.videos), ("audio", body.audios)):
        media[kind].extend(given or [])
        if media[kind] and not is_multimodal:
            raise ApiError(400, f"This model takes text only, no {kind}s.", param=f"{kind}s" if given else "messages")
    turns = list(join_observations(_ordered(turns)))
    begun = ""
    if turns[-1].role == "assistant":
        if turns[-1].tool_calls:
            raise ApiError(400, "The last message holds tool calls; their results are missing.", param="messages")
        begun = turns.pop().content
    if not any(turn.role in ("user", "tool") for turn in turns):
        raise ApiError(400, "No message of the user to answer.", param="messages")
    carried = Media(tuple(media["image"]), tuple(media["video"]), tuple(media["audio"]))
    return Conversation(tuple(turns), use.tools, carried), begun


def _in_order_of_calls(messages: Sequence[ChatMessage]) -> list[tuple[int, ChatMessage]]:
    """The messages with their places; results of tools stand in the order of the calls they answer.

    Prompts show results without ids, so the order is what tells a model which is which.
    """
    ordered: list[tuple[int, ChatMessage]] = []
    calls: list[str | None] = []
    results: list[tuple[int, ChatMessage]] = []
    for at, given in enumerate(messages):
        if given.role == "tool" and given.tool_call_id is not None and any(calls):
            if given.tool_call_id not in calls:
                message = f"`{given.tool_call_id}` is the id of no call in the message before."
                raise ApiError(400, message, param=f"messages[{at}].tool_call_id")
            results.append((at, given))
            continue
        ordered += sorted(results, key=lambda each: calls.index(each[1].tool_call_id))
        results = []
        ordered.append((at, given))
        if given.role != "tool":
            calls = [call.id for call in given.tool_calls or ()]
    return ordered + sorted(results, key=lambda each: calls.index(each[1].tool_call_id))


def _message(at: int, given: ChatMessage, media: dict[str, list[str]]) -> Message:
    role = {"developer": "system", "function": "tool"}.get(given.role, given.role)
    if given.content is None and not given.tool_calls:
        raise ApiError(400, f"A message of the {given.role} needs content.", param=f"messages[{at}].content")
    if given.tool_calls and role != "assistant":
        raise ApiError(400, "Only the assistant makes tool calls.", param=f"messages[{at}].tool_calls")
    content = given.content or ""
    if not isinstance(content, str):
        content = "".join(_part(f"messages[{at}].content[{i}]", part, media) for i, part in enumerate(content))
    calls = tuple(
        ToolCall(call.function.name, call.function.arguments or "{}", call.id) for call in given.tool_calls or ()
    )
    return Message(role, content, calls, given.reasoning_content)  # type: ignore[arg-type]


def _part(where: str, part: ContentPart, media: dict[str, list[str]]) -> str:
    if part.type in ("text", "refusal"):
        return part.text or ""
    kind = part.type.removesuffix("_url").removeprefix("input_")
    values = {
        "image": part.image or part.image_url,
        "video": part.video or part.video_url,
        "audio": part.audio or part.audio_url,
    }
    value = values[kind]
    url = value.get("url") if isinstance(value, dict) else value
    if not isinstance(url, str):
        raise ApiError(400, f"The {kind} has no URL.", param=f"{where}.{part.type}")
    media[kind].append(url)
    return _TAGS[kind]


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
            ordered[-1] = replace(last, content=text, tool_calls=last.tool_calls + turn.tool_calls)
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
