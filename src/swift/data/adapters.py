"""How the columns of a registered data set become the keys of a known format.

A converter takes a record, with its columns renamed already, and the entry's options, and gives a row of a format that
`swift.data.formats` knows. The ones of single data sets are in `registered.py`, and in `media_sets.py` where they
have pictures, videos or sounds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from swift.data import media_adapters, text_adapters
from swift.data.columns import names, renamed
from swift.data.source import SourceFile
from swift.prompts import values
from swift.prompts.bad_row import BadRow

Fields = Mapping[str, Any]


def converter(file: SourceFile) -> Callable[[Any], Any]:
    """The function that turns a record of this file into a row."""
    change = _named(file.converter)
    options, marks = file.options, file.replace

    def converted(record: Any) -> Any:
        if not isinstance(record, Mapping):
            return record
        if marks:
            record = _marked(record, marks)
        if columns := names(record, file):
            record = renamed(record, columns)
        return change(record, **options) if change is not None else record

    return converted


def _named(how: str | Callable[..., Any]) -> Callable[..., Any] | None:
    if not isinstance(how, str):
        return how
    if how in ("auto", "rename"):
        return None
    return CONVERTERS[how]


def _marked(record: Fields, marks: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """The record with marks such as {{NAME}} filled in, in the language its `tag` says."""
    language = 0 if record.get("tag") == "zh" else 1
    filled = {}
    for name, value in record.items():
        for mark, texts in marks.items():
            value = value.replace(mark, texts[language]) if isinstance(value, str) else value
        filled[name] = value
    filled.pop("tag", None)
    return filled


def alpaca(record: Fields, join: str = "") -> dict[str, Any]:
    """instruction, input, output; `join` alpaca_zh takes the label off inputs that start with 输入："""
    row = dict(record)
    given = row.get("input")
    if join == "alpaca_zh" and isinstance(given, str):
        row["input"] = given.removeprefix("输入：")
    return row


def conversations(
    record: Fields,
    *,
    conversations_key: str = "conversations",
    from_key: str = "from",
    value_key: str = "value",
    user_role: str = "user",
    assistant_role: str = "assistant",
    system_role: str = "system",
    tool_role: str = "tool",
    media_key: str = "image",
    media_type: str | None = None,
    repair: str | None = None,
    error_strategy: str | None = None,
    media_tag: str | None = None,
) -> dict[str, Any]:
    """A list of turns under keys and roles of its own. `repair` names what is wrong with the set's conversations.

    `error_strategy` and `media_tag` of a dataset_info file are accepted: a bad row is always dropped and named, and
    the tag follows from the kind of media.
    """
    items = values.a_list(record.get(conversations_key), conversations_key)
    if repair is not None:
        items = REPAIRS[repair](items)
    roles = {user_role: "user", assistant_role: "assistant", system_role: "system", tool_role: "tool"}
    messages = []
    for number, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise BadRow("wrong type", key=f"{conversations_key}[{number}]", expected="a turn", value=item)
        name = item.get(from_key)
        messages.append({"role": roles.get(str(name), name), "content": item.get(value_key)})
    row = {key: value for key, value in record.items() if key not in (conversations_key, media_key)}
    if media_type and record.get(media_key) is not None:
        row[f"{media_type}s"] = record[media_key]
    return {**row, "messages": messages}


def _fit_for_training(items: Sequence[Any]) -> list[Any]:
    """ms-bench: no stock system text, and no conversation that speaks of another assistant."""
    kept = list(items)
    if kept and kept[0].get("value") == "You are a helpful assistant." and kept[0].get("from") == "system":
        kept = kept[1:]
    for item in kept:
        value_text = str(item.get("value")).lower()
        if any(mark in value_text for mark in ("moss", "human:", "assistant:", "user:")):
            raise BadRow("not for training", key="conversations", expected="no foreign role marks", value=value_text)
    return kept


def _several_tools(items: Sequence[Any]) -> list[Any]:
    """MSAgent-Bench: only conversations whose system text offers more than one tool."""
    offered = re.findall(r'\d\. \{"(?:plugin_)?name": "(.+?)"', str(items[0].get("value")) if items else "")
    if len(set(offered)) <= 1:
        raise BadRow("not for training", key="conversations[0].value", expected="several tools", value=offered)
    return list(items)


def _caller_and_conclusion(items: Sequence[Any]) -> list[Any]:
    """ToolBench for alpha-umi: one instruction, answered by one of the set's three roles."""
    answers = ("assistant", "caller", "conclusion")
    return [{**item, "from": "assistant"} if item.get("from") in answers else item for item in items]


REPAIRS: dict[str, Callable[[Sequence[Any]], list[Any]]] = {
    "ms_bench": _fit_for_training,
    "agent_conversations": _several_tools,
    "agent_instruct": list,
    "toolbench": _caller_and_conclusion,
}


def classification(
    record: Fields, *, labels: Sequence[str], prompt: str, is_pair_seq: bool, task_name: str = ""
) -> dict[str, Any]:
    """A sentence, or two, and the number of its class."""
    number = record.get("label")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(labels):
        raise BadRow("wrong type", key="label", expected=f"a number below {len(labels)}", value=number)
    names = ("sentence1", "sentence2") if is_pair_seq else ("sentence",)
    return {
        "query": prompt.format(**{name: values.text(record.get(name), name) for name in names}),
        "response": labels[number],
    }


def text_generation(record: Fields, *, prompt: str, query_key: str, response_key: str) -> dict[str, Any]:
    """One column, put into a prompt, and the text to write from it."""
    query = values.text(record.get(query_key), query_key)
    return {"query": prompt.format(query=query), "response": record.get(response_key)}


def question_list(
    record: Fields, *, query_key: str, response_key: str, conversations_key: str, inner_key: str | None = None
) -> dict[str, Any]:
    """A list of questions and answers about one picture."""
    listed = record.get(conversations_key)
    if inner_key is not None and isinstance(listed, Mapping):
        listed = listed.get(inner_key)
    messages = []
    for number, pair in enumerate(values.a_list(listed, conversations_key)):
        for role, key in (("user", query_key), ("assistant", response_key)):
            turn = pair.get(key) if isinstance(pair, Mapping) else None
            messages.append({"role": role, "content": values.text(turn, f"{conversations_key}[{number}].{key}")})
    return {"messages": messages, "images": record.get("image")}


CONVERTERS: dict[str, Callable[..., Any]] = {
    "alpaca": alpaca,
    "conversations": conversations,
    "classification": classification,
    "text_generation": text_generation,
    "list": question_list,
    **text_adapters.CONVERTERS,
    **media_adapters.CONVERTERS,
}
