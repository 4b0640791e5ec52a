"""What registered templates make of conversations beyond the recorded encodings."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest

from swift.catalog import load_catalog
from swift.core.errors import SwiftError
from swift.prompts.template import DataTemplate
from swift.prompts.types import Conversation, Message, Origin, ToolCall

CATALOG = load_catalog()
ASK = Message("user", "Hi")
SAY = Message("assistant", "Hello")
TOOL = {"type": "function", "function": {"name": "weather", "description": "Weather.", "parameters": {}}}


@pytest.fixture
def text_of(golden_tokenizer: Callable[[str], Any]) -> Callable[..., str]:
    """The rendered conversation; trained parts stand in ⟦⟧, token ids in ‹›."""

    def text(name: str, conversation: Conversation, **options: Any) -> str:
        tokenizer = golden_tokenizer("smollm2-plus")
        render = {key: options.pop(key) for key in ("inference", "last_only") if key in options}
        (example,) = DataTemplate(CATALOG.templates.get(name), tokenizer, **options).render(conversation, **render)
        return "".join(_said(s.content) if s.weight == 0 else f"⟦{_said(s.content)}⟧" for s in example.segments)

    return text


def _said(content: str | tuple[int, ...]) -> str:
    return content if isinstance(content, str) else "‹" + " ".join(map(str, content)) + "›"


@pytest.mark.parametrize("name", list(CATALOG.templates))
def test_every_template_writes_a_question_and_an_answer(name: str, golden_tokenizer: Callable[[str], Any]) -> None:
    template = DataTemplate(CATALOG.templates.get(name), golden_tokenizer("smollm2-plus"))
    segments = template.render(Conversation((ASK, SAY)))[0].segments
    assert "Hi" in "".join(str(s.content) for s in segments if s.weight == 0)
    trained = [s.content for s in segments if s.weight > 0]
    assert str(trained[0]).startswith("Hello")
    assert trained != ["Hello"], "the end of the answer is trained as well"


@pytest.mark.parametrize("name", list(CATALOG.templates))
def test_an_empty_question_is_a_turn(name: str, text_of: Callable[..., str]) -> None:
    empty, word = (Conversation((Message("user", query),)) for query in ("", "¤"))
    assert text_of(name, empty, inference=True) == text_of(name, word, inference=True).replace("¤", "")
    if CATALOG.templates.get(name).separator is not None:
        empty, word = (Conversation((ASK, SAY, Message("user", query))) for query in ("", "¤"))
        assert text_of(name, empty, inference=True) == text_of(name, word, inference=True).replace("¤", "")


def test_a_value_is_never_read_as_a_slot(text_of: Callable[..., str]) -> None:
    row = Conversation((Message("system", "{{query}}"), Message("user", "{{system}} {{QUERY}}"), SAY))
    assert text_of("deepseek2", row) == "‹100000›{{query}}\n\nUser: {{system}} {{QUERY}}\n\nAssistant:⟦Hello⟧⟦‹100001›⟧"


def test_system_of_the_row_beats_the_one_of_the_run_beats_the_template(text_of: Callable[..., str]) -> None:
    plain, given = Conversation((ASK, SAY)), Conversation((Message("system", "row"), ASK, SAY))
    assert text_of("qwen", plain).startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>")
    assert text_of("qwen", plain, system="run").startswith("<|im_start|>system\nrun<|im_end|>")
    assert text_of("qwen", given, system="run").startswith("<|im_start|>system\nrow<|im_end|>")
    assert text_of("qwen", plain, system="").startswith("<|im_start|>user")
    assert text_of("qwen", Conversation((Message("system", ""), ASK, SAY))).startswith("<|im_start|>user")


def test_template_without_a_system_text_says_so(text_of: Callable[..., str]) -> None:
    with pytest.raises(SwiftError, match="no place for a system text") as found:
        text_of("telechat", Conversation((Message("system", "x"), ASK, SAY), origin=Origin("rows.jsonl", 7)))
    assert found.value.where == "rows.jsonl:7"
    with pytest.raises(SwiftError, match="no place for a system text"):
        text_of("telechat", Conversation((ASK, SAY)), system="x")


def test_tools_stand_before_the_question_where_there_is_no_system_text(text_of: Callable[..., str]) -> None:
    text = text_of("telechat", Conversation((ASK, SAY), (TOOL,)))
    assert text.startswith("<_user>Answer the question")
    assert text.endswith("Begin!\n\nHi<_bot>⟦Hello<_end>⟧")


def test_mistral_nemo_writes_the_system_text_before_the_last_question(text_of: Callable[..., str]) -> None:
    row = Conversation((Message("system", "Be short."), ASK, SAY, Message("user", "And?"), Message("assistant", "No.")))
    expected = "<s>[INST] Hi[/INST]⟦Hello⟧</s>[INST] Be short.\n\nAnd?[/INST]⟦No.</s>⟧"
    assert text_of("mistral-nemo", row) == expected


def test_chatglm2_counts_the_turns(text_of: Callable[..., str]) -> None:
    row = Conversation((ASK, SAY, Message("user", "And?"), Message("assistant", "No.")))
    expected = "[Round 1]\n\n问：Hi\n\n答：⟦Hello⟧\n\n[Round 2]\n\n问：And?\n\n答：⟦No.⟧⟦‹49157›⟧"
    assert text_of("chatglm2", row) == expected


def test_llama3_2_writes_the_day(text_of: Callable[..., str]) -> None:
    text = text_of("llama3_2", Conversation((ASK, SAY)), today=datetime.date(2025, 3, 9))
    assert "Today Date: 09 Mar 2025\n" in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("c4ai", "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>"),
        ("aya", "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>S<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>"),
        ("llava-mistral", "<<SYS>>\nS\n<</SYS>>\n\nHi [/INST]"),
        ("deepseek2_5", "<｜begin▁of▁sentence｜>S<｜User｜>Hi<｜Assistant｜>⟦Hello<｜end▁of▁sentence｜>⟧"),
    ],
)
def test_malformed_strings_are_repaired(name: str, expected: str, text_of: Callable[..., str]) -> None:
    assert text_of(name, Conversation((Message("system", "S"), ASK, SAY))).startswith(expected)


@pytest.mark.parametrize(
    "messages",
    [
        (ASK, ASK, SAY),
        (ASK, Message("system", "late"), SAY),
        (Message("tool", "x"), ASK, SAY),
    ],
)
def test_roles_out_of_order_are_named(messages: tuple[Message, ...], text_of: Callable[..., str]) -> None:
    with pytest.raises(SwiftError, match="roles are out of order at message") as found:
        text_of("chatml", Conversation(messages, origin=Origin("rows.jsonl", 3)))
    assert found.value.where == "rows.jsonl:3"


def test_one_turn_templates_refuse_a_second(text_of: Callable[..., str]) -> None:
    with pytest.raises(SwiftError, match="knows one question and one answer, the row has 2 turns"):
        text_of("yuan", Conversation((ASK, SAY, ASK, SAY)))


def test_weight_zero_leaves_an_answer_untrained(text_of: Callable[..., str]) -> None:
    row = Conversation((ASK, Message("assistant", "no", weight=0.0), ASK, Message("assistant", "yes")))
    text = text_of("chatml", row)
    assert "no<|im_end|>" in text
    assert text.endswith("⟦yes<|im_end|>⟧")


def test_last_only_trains_the_last_answer(text_of: Callable[..., str]) -> None:
    text = text_of("chatml", Conversation((ASK, SAY, ASK, Message("assistant", "Bye"))), last_only=True)
    assert text.count("⟦") == 1
    assert text.endswith("⟦Bye<|im_end|>⟧")


def test_an_answer_at_the_end_of_a_prompt_is_gone_on_with(text_of: Callable[..., str]) -> None:
    text = text_of("chatml", Conversation((ASK, Message("assistant", "Hel"))), inference=True)
    assert text.endswith("<|im_start|>assistant\n⟦Hel⟧")


def test_reasoning_stands_in_front_of_the_answer(text_of: Callable[..., str]) -> None:
    text = text_of("chatml", Conversation((ASK, Message("assistant", "4", reasoning="2 and 2"))))
    assert text.endswith("⟦<think>\n2 and 2\n</think>\n\n4<|im_end|>⟧")


def test_react_results_stand_inside_the_answer_untrained(text_of: Callable[..., str]) -> None:
    call = Message("assistant", "I look.", tool_calls=(ToolCall("weather", '{"city": "Oslo"}'),))
    row = Conversation((ASK, call, Message("tool", "-3"), Message("assistant", "Cold.")), (TOOL,))
    text = text_of("chatml", row)
    assert text.endswith(
        '⟦I look.\nAction: weather\nAction Input: {"city": "Oslo"}\nObservation:⟧ -3\n⟦Cold.<|im_end|>⟧'
    )
    assert text_of("chatml", Conversation(row.messages[:3], (TOOL,)), inference=True).endswith("Observation:⟧ -3\n")


def test_several_calls_and_results_keep_their_order(text_of: Callable[..., str]) -> None:
    calls = (ToolCall("weather", '{"city": "Oslo"}'), ToolCall("weather", '{"city": "Rome"}'))
    row = (ASK, Message("assistant", "", tool_calls=calls), Message("tool", "-3"), Message("tool", "20"), SAY)
    text = text_of("chatml", Conversation(row, (TOOL,)))
    assert text.endswith(
        '⟦Action: weather\nAction Input: {"city": "Oslo"}\nObservation:⟧ -3\n'
        '⟦Action: weather\nAction Input: {"city": "Rome"}\nObservation:⟧ 20\n⟦Hello<|im_end|>⟧'
    )


def test_tool_results_are_turns_where_the_format_says_so(text_of: Callable[..., str]) -> None:
    call = Message("assistant", "", tool_calls=(ToolCall("weather", '{"city": "Oslo"}'),))
    row = Conversation((ASK, call, Message("tool", "-3"), SAY), (TOOL,))
    glm = text_of("chatglm4", row)
    assert glm.endswith('⟦weather\n{"city": "Oslo"}<|observation|>⟧\n-3<|assistant|>\n⟦Hello<|user|>⟧')
    assert text_of("chatglm4", Conversation(row.messages[:2], (TOOL,))).endswith('"Oslo"}<|observation|>⟧')
    given = Conversation((ASK, SAY, Message("tool", "-3"), SAY), (TOOL,))
    assert text_of("chatglm4", given).endswith("⟦Hello⟧<|observation|>\n-3<|assistant|>\n⟦Hello<|user|>⟧")
    llama = text_of("llama3", row)
    assert "You solve the user's task step by step" in llama
    assert "⟧<|eot_id|><|start_header_id|>tool<|end_header_id|>\n\n-3<|eot_id|>" in llama
