"""Chat templates of published models: the same ids as `apply_chat_template`, and a mask for every answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.prompts.conftest import TEMPLATES

from swift.core.errors import SwiftError
from swift.prompts.chat_template import plain
from swift.prompts.encode import Encoder
from swift.prompts.types import Conversation, Message, Origin, ToolCall

NAMES = sorted(path.stem for path in TEMPLATES.glob("*.jinja"))
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "where"}}},
    },
}
ASK, SAY = Message("user", "question one"), Message("assistant", "answer one")
ASK2, SAY2 = Message("user", "question two"), Message("assistant", "answer two")
ROWS = {
    "single": (ASK, SAY),
    "system": (Message("system", "a rule"), ASK, SAY),
    "turns": (ASK, SAY, ASK2, SAY2, Message("user", "问题三"), Message("assistant", "答案三")),
    "blanks": (Message("user", "  a\n\nb "), Message("assistant", "c  \n d"), ASK2, SAY2),
    "thinking": (ASK, Message("assistant", "<think>\nwhy\n</think>\n\nanswer one"), ASK2, SAY2),
}
CALLED = Conversation(
    (
        ASK,
        Message("assistant", "", tool_calls=(ToolCall("weather", '{"city": "Oslo"}'),)),
        Message("tool", '{"celsius": -3}'),
        SAY,
        ASK2,
        SAY2,
    ),
    (TOOL,),
)
REWRITES = {("mistral_nemo", "system")}
"""Finished conversations leave out the system text that the prompt has; the prompt is what we train on."""


def _plain(encoder: Encoder, messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    items = plain(messages, as_object=True, named=False)
    if encoder.template.chat_template.traits.parts:
        return [{**item, "content": [{"type": "text", "text": item["content"]}]} for item in items]
    return items


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ROWS)
def test_ids_are_those_of_the_tokenizer(
    name: str, kind: str, chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    tokenizer = chat_tokenizer(name)
    encoder = encoder_of("jinja", tokenizer)
    messages = ROWS[kind]
    if name == "gemma2" and kind == "system":
        with pytest.raises(SwiftError, match="System role not supported"):
            encoder.encode(Conversation(messages))
        return
    prompt = tokenizer.apply_chat_template(
        _plain(encoder, messages[:-1]), add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert encoder.encode(Conversation(messages[:-1]), inference=True)[0].input_ids == list(prompt)
    if (name, kind) not in REWRITES:
        whole = tokenizer.apply_chat_template(_plain(encoder, messages), tokenize=True, return_dict=False)
        assert encoder.encode(Conversation(messages))[-1].input_ids == list(whole)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("row", [*(Conversation(messages) for messages in ROWS.values()), CALLED], ids=[*ROWS, "tools"])
def test_every_answer_is_trained_once_and_nothing_else(
    name: str, row: Conversation, chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    encoder = encoder_of("jinja", chat_tokenizer(name))
    if name == "gemma2" and row.messages[0].role == "system":
        return
    trained = []
    for encoded in encoder.encode(row):
        run: list[int] = []
        for label in [*encoded.labels, -100]:
            if label != -100:
                run.append(label)
            elif run:
                trained.append(encoder.tokens.decode(run))
                run = []
    answers = [message for message in row.messages if message.role == "assistant"]
    assert len(trained) == len(answers)
    for answer in answers:
        said = answer.content.rpartition("</think>")[2].strip() or "weather"
        (text,) = (text for text in trained if said in text)
        assert text.endswith(encoder.template.chat_template.traits.end) or answer.tool_calls or name == "gptoss"
    for message in row.messages:
        if message.role != "assistant":
            assert not any(message.content in text for text in trained)


def test_rewritten_answers_become_examples_of_their_own(
    chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder], shown: Callable[..., str]
) -> None:
    encoder = encoder_of("jinja", chat_tokenizer("qwen3"))
    thought = Message("assistant", "4", reasoning="two and two"), Message("assistant", "6", reasoning="three and three")
    found = encoder.encode(Conversation((ASK, thought[0], ASK2, thought[1])))
    asked = "<|im_start|>user\nquestion one<|im_end|>\n<|im_start|>assistant\n"
    assert [shown(encoder, one) for one in found] == [
        f"{asked}⟦<think>\ntwo and two\n</think>\n\n4<|im_end|>⟧\n",
        f"{asked}4<|im_end|>\n<|im_start|>user\nquestion two<|im_end|>\n<|im_start|>assistant\n"
        "⟦<think>\nthree and three\n</think>\n\n6<|im_end|>⟧\n",
    ]


def test_a_chain_of_calls_is_one_example_where_the_template_keeps_it(
    chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    encoder = encoder_of("jinja", chat_tokenizer("qwen2_5"))
    assert len(encoder.encode(CALLED)) == 1


def test_prompt_of_mistral_nemo_keeps_the_system_text(
    chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder], shown: Callable[..., str]
) -> None:
    encoder = encoder_of("jinja", chat_tokenizer("mistral_nemo"))
    (found,) = encoder.encode(Conversation((Message("system", "a rule"), ASK, SAY)))
    assert shown(encoder, found) == "<s>[INST]a rule\n\nquestion one[/INST]⟦answer one</s>⟧"


def test_variables_of_the_template(chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]) -> None:
    encoder = encoder_of("jinja", chat_tokenizer("qwen3"))
    (thinks,) = encoder.encode(Conversation((ASK,)), inference=True)
    (does_not,) = encoder.encode(Conversation((ASK,)), inference=True, options={"enable_thinking": False})
    assert (
        encoder.tokens.decode(does_not.input_ids) == encoder.tokens.decode(thinks.input_ids) + "<think>\n\n</think>\n\n"
    )


def test_refusal_of_the_template_names_the_row(
    chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    encoder = encoder_of("jinja", chat_tokenizer("gemma3"))
    row = Conversation((ASK, ASK2, SAY), origin=Origin("rows.jsonl", 12))
    with pytest.raises(SwiftError, match="roles must alternate") as found:
        encoder.encode(row)
    assert found.value.where == "rows.jsonl:12"


@pytest.mark.parametrize(
    ("name", "mark"), [("qwen3", "<tools>"), ("llama3_1_tools", "ipython"), ("gptoss", "namespace functions")]
)
def test_native_tools(
    name: str, mark: str, chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    encoder = encoder_of("jinja", chat_tokenizer(name))
    text = encoder.tokens.decode(encoder.encode(CALLED)[-1].input_ids)
    assert mark in text
    assert "Action Input" not in text
    chosen = encoder_of("jinja", chat_tokenizer(name), tools_format="react_zh")
    text = encoder.tokens.decode(chosen.encode(CALLED)[-1].input_ids)
    assert 'Action Input: {"city": "Oslo"}' in text
    assert 'Observation: {"celsius": -3}' in text
    assert mark not in text


@pytest.mark.parametrize("name", ["qwen3", "qwen2_5", "llama3_1_tools", "gptoss"])
def test_native_call_is_read_back(
    name: str, chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    encoder = encoder_of("jinja", chat_tokenizer(name))
    row = Conversation(CALLED.messages[:2], (TOOL,))
    encoded = encoder.encode(row)[-1]
    reply = encoder.tokens.decode([label for label in encoded.labels if label != -100])
    for stop in encoder.stop_strings:
        reply = reply.removesuffix(stop)
    (call,) = encoder.parse_reply(reply).tool_calls
    assert call.name == "weather"
    assert json.loads(call.arguments) == {"city": "Oslo"}


def test_templates_without_tools_get_them_as_text(
    chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder], shown: Callable[..., str]
) -> None:
    for name in ("gemma2", "gemma3", "llama3_1"):
        encoder = encoder_of("jinja", chat_tokenizer(name))
        text = shown(encoder, encoder.encode(CALLED)[-1])
        assert "You may call these tools" in text
        assert '⟦Action: weather\nAction Input: {"city": "Oslo"}<' in text


@pytest.mark.parametrize("name", sorted({*NAMES} - {"llama3_1_tools"}))
def test_results_of_parallel_calls_are_written(
    name: str, chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    encoder = encoder_of("jinja", chat_tokenizer(name))
    calls = (ToolCall("weather", '{"city": "Oslo"}'), ToolCall("weather", '{"city": "Rome"}'))
    turns = (ASK, Message("assistant", "", calls), Message("tool", "snow"), Message("tool", "sun"))
    for last in (SAY, ASK2)[: 1 if name == "mistral_nemo" else 2]:  # Nemo answers a result before the next question.
        encoded = encoder.encode(Conversation((*turns, last), (TOOL,)), inference=last is ASK2)[-1]
        text = encoder.tokens.decode(encoded.input_ids)
        assert 0 < text.rindex("Oslo") < text.index("snow") < text.index("sun") < text.rindex(last.content)


def test_no_double_bos(chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]) -> None:
    tokenizer = chat_tokenizer("llama3_1_tools")
    encoded = encoder_of("jinja", tokenizer).encode(Conversation((ASK, SAY)))[0]
    assert encoded.input_ids.count(tokenizer.bos_token_id) == 1


def test_tokenizers_without_offsets_give_the_same(
    chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    encoder = encoder_of("jinja", chat_tokenizer("qwen3"))
    row = Conversation(ROWS["turns"])
    fast = encoder.encode(row)
    encoder.tokens._backend = None
    assert encoder.encode(row) == fast


def test_tokenizer_without_a_chat_template(
    golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    tokenizer = golden_tokenizer("smollm2")
    with pytest.raises(SwiftError, match="the tokenizer has no chat template"):
        encoder_of("jinja", tokenizer)
    assert encoder_of("jinja", tokenizer, given=False).template_type == "default-generation"


def test_loss_scale_weighs_parts_of_the_answer(
    chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    encoder = encoder_of("jinja", chat_tokenizer("qwen2_5"), loss_scale="default")
    row = Conversation((ASK, Message("assistant", "Hm. Action: f\nObservation: x")))
    (found,) = encoder.encode(row)
    assert found.loss_scale is not None
    by_weight: dict[float, str] = {}
    for token, scale in zip(found.input_ids, found.loss_scale, strict=True):
        by_weight[scale] = by_weight.get(scale, "") + encoder.tokens.decode([token])
    assert by_weight[1.0] == "Hm.<|im_end|>"
    assert by_weight[2.0] == " Action: f\nObservation:"
    assert by_weight[0.0].endswith(" x\n")


def test_images_are_parts_where_the_template_writes_our_tag_for_them(
    chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    """SmolVLM puts no blank before a question that begins with an image."""
    tokenizer = chat_tokenizer("smolvlm")
    template = encoder_of("jinja", tokenizer).template.chat_template
    asked = Message("user", "<image>a<image>"), Message("assistant", "b"), Message("user", "c<image>")
    parts = [
        [{"type": "image"}, {"type": "text", "text": "a"}, {"type": "image"}],
        [{"type": "text", "text": "b"}],
        [{"type": "text", "text": "c"}, {"type": "image"}],
    ]
    given = [{"role": turn.role, "content": content} for turn, content in zip(asked, parts, strict=True)]
    text = template.write(asked)
    assert text == tokenizer.apply_chat_template(given, tokenize=False)
    assert "User:<image>a<image><end" in text and "User: c<image><end" in text
    other = chat_tokenizer("gemma3")  # which writes <start_of_image>
    assert not encoder_of("jinja", other).template.chat_template.traits.image_parts
