"""`swift.get_template` and the rows it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import swift
from swift.core.errors import SwiftError
from swift.prompts.api import conversation_of
from swift.prompts.types import Conversation, Message, ToolCall

TOOLS = '[{"type": "function", "function": {"name": "weather", "parameters": {}}}]'


def test_signature_is_the_published_one() -> None:
    parameters = inspect.signature(swift.get_template).parameters
    assert list(parameters) == [
        "template_type",
        "tokenizer",
        "default_system",
        "max_length",
        "truncation_strategy",
        "tools_prompt",
        "loss_scale",
    ]
    defaults = {name: p.default for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert defaults == {
        "default_system": None,
        "max_length": None,
        "truncation_strategy": "delete",
        "tools_prompt": "react_en",
        "loss_scale": None,
    }


def test_messages_and_rounds_are_the_same_conversation() -> None:
    rounds = {"system": "s", "history": [["a", "b"]], "query": "c", "response": "d"}
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    assert conversation_of(rounds) == conversation_of({"messages": messages})


def test_openai_calls() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    row = {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [call]}],
        "tools": TOOLS,
    }
    found = conversation_of(row)
    assert found.messages[1] == Message("assistant", "", tool_calls=(ToolCall("weather", '{"city": "Oslo"}', "1"),))
    assert found.tools[0]["function"]["name"] == "weather"


def test_empty_row_is_a_question_to_come() -> None:
    assert conversation_of({"query": ""}) == Conversation((Message("user", ""),))


@pytest.mark.parametrize(
    ("row", "given"),
    [
        ({"history": [["a"]], "query": "b"}, r"history\[0\] is not a pair of texts"),
        ({"messages": [{"role": "robot", "content": "x"}]}, r'unknown role: messages\[0\].role: .* "robot"'),
        ({"messages": "abc"}, "messages is not a list"),
        ({"messages": [None]}, r"messages\[0\]: expected an object"),
        ({"messages": [{"role": "user", "content": 5}]}, r"messages\[0\].content: expected text, got 5"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            r"content\[0\].image_url: expected some text",
        ),
        ({"query": 1}, "query is not a text"),
        ({"query": "q", "response": 5}, "response is not a text"),
        ({"query": "q", "system": 5}, "system is not a text"),
        ({"query": "q", "history": [["a", "b"]], "history_roles": [["user", "assistant"]] * 2}, "history_roles has 2"),
        ({"query": "q", "tools": "{"}, "tools: expected a list"),
        ({"query": "q", "tools": 5}, "tools: expected a list, got 5"),
        ({"instruction": "i", "output": "o"}, "none of the keys"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "none of the keys"),
        (None, "none of the keys"),
    ],
)
def test_wrong_rows_name_the_field(row: dict[str, Any], given: str) -> None:
    with pytest.raises(SwiftError, match=given):
        conversation_of(row)


def test_inference_leaves_the_answer_out(golden_tokenizer: Callable[[str], Any]) -> None:
    template = swift.get_template("chatml", golden_tokenizer("smollm2"))
    asked = template.encode({"query": "Hi"})
    assert template.encode({"query": "Hi", "response": "Hello"}, inference=True) == asked
    assert asked is not None
    assert asked["labels"] is None


def test_tools_prompt_chooses(golden_tokenizer: Callable[[str], Any], chat_tokenizer: Callable[[str], Any]) -> None:
    row = {"query": "Hi", "tools": TOOLS}

    def text(name: str, tokenizer: Any, **options: Any) -> str:
        found = swift.get_template(name, tokenizer, **options).encode(row)
        assert found is not None
        return tokenizer.decode(found["input_ids"])

    plus = golden_tokenizer("smollm2-plus")
    written = {kind: text("qwen", plus, tools_prompt=kind) for kind in ("react_en", "react_zh", "toolbench")}
    assert len(set(written.values())) == 3
    assert text("qwen", plus) == written["react_en"]
    assert "可用工具" in text("chatglm4", plus)
    assert "开始！" in text("chatglm4", plus, tools_prompt="react_zh")
    qwen3 = chat_tokenizer("qwen3")
    assert "<tools>" in text("jinja", qwen3)
    assert "<tools>" not in text("jinja", qwen3, tools_prompt="toolbench")


def test_content_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    assert conversation_of({"messages": [{"role": "user", "content": parts}]}) == conversation_of({"query": "a b"})
