"""Prompts against the tokenizer's own template, against a checkpoint's, and rows that would train wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swift.core.errors import SwiftError
from swift.prompts import parity
from swift.prompts.encode import Encoder
from swift.prompts.types import Conversation, Message

ROW = Conversation((Message("user", "Hi"), Message("assistant", "Hello")))


def _row(encoder: Encoder, conversation: Conversation) -> dict[str, list[int]]:
    (encoded,) = encoder.encode(conversation)
    return {"input_ids": encoded.input_ids, "labels": encoded.labels}


def test_registered_smollm2_is_its_own_template(
    chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    assert parity.differences_from_own(encoder_of("smollm2", chat_tokenizer("smollm2"))) == []


@pytest.mark.parametrize(
    ("template", "tokenizer", "expected"),
    [
        (
            "qwen",
            "smollm2",
            "the default system text: token 8 differs: after '<|im_start|>system\\nYou are a helpful' comes "
            "' assistant.<|im_end|>\\n', in the chat template ' AI assistant named Sm'",
        ),
        ("llama3", "smollm2", "the default system text: token 1 differs: comes "),
        (
            "gemma",
            "gemma3",
            "one question: token 3 differs: after '<bos><start_of_turn>' comes 'system\\nBe short', in",
        ),
        (
            "qwen2_5",
            "qwen2_5",
            "tools: token 9 differs: after '<|im_start|>system\\nBe short.\\n\\n' comes 'Answer the",
        ),
    ],
)
def test_difference_is_said_in_words(
    template: str,
    tokenizer: str,
    expected: str,
    chat_tokenizer: Callable[[str], Any],
    encoder_of: Callable[..., Encoder],
) -> None:
    found = parity.differences_from_own(encoder_of(template, chat_tokenizer(tokenizer)))
    assert found[0].startswith(expected)


def test_jinja_and_tokenizers_without_a_template_have_nothing_to_compare(
    golden_tokenizer: Callable[[str], Any], chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    assert parity.differences_from_own(encoder_of("jinja", chat_tokenizer("qwen3"))) == []
    assert parity.differences_from_own(encoder_of("qwen", golden_tokenizer("smollm2"))) == []


@pytest.mark.parametrize(
    ("template", "tokenizer", "told"),
    [
        ("smollm2", "smollm2", None),
        ("gemma", "gemma2", None),
        ("qwen2_5", "qwen2_5", "tools"),
        ("llama3", "smollm2", "one"),
    ],
)
def test_a_system_text_of_the_users_is_no_difference(
    template: str,
    tokenizer: str,
    told: str | None,
    chat_tokenizer: Callable[[str], Any],
    encoder_of: Callable[..., Encoder],
) -> None:
    for system in ("Answer in French.", ""):
        found = parity.differences_from_own(encoder_of(template, chat_tokenizer(tokenizer), system=system))
        assert not found if told is None else found[0].startswith(told)


@pytest.mark.parametrize("template", ["chatml", "llama3_2", "telechat", "default-generation"])
def test_checkpoint_of_the_same_template_passes(
    template: str, tmp_path: Path, golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    tokenizer = golden_tokenizer("smollm2-plus")
    parity.write_certificate(encoder_of(template, tokenizer), tmp_path)
    system = {"system": "Another one."} if template == "chatml" else {}
    parity.require_same_template(tmp_path, encoder_of(template, tokenizer, max_length=5, **system), ignore=False)


def test_checkpoint_of_another_template_is_refused(
    tmp_path: Path, golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    tokenizer = golden_tokenizer("smollm2-plus")
    parity.write_certificate(encoder_of("chatml", tokenizer), tmp_path)
    other = encoder_of("zephyr", tokenizer)
    with pytest.raises(SwiftError, match="the prompts differ from those this checkpoint was trained on") as found:
        parity.require_same_template(tmp_path, other, ignore=False)
    assert "trained with the template chatml, now zephyr" in str(found.value.why)
    assert "token 1 differs" in str(found.value.why)
    assert "--ignore_template_mismatch true" in str(found.value.next)
    parity.require_same_template(tmp_path, other, ignore=True)


def test_changed_chat_template_is_noticed(
    tmp_path: Path, chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    parity.write_certificate(encoder_of("jinja", chat_tokenizer("qwen2_5")), tmp_path)
    parity.require_same_template(tmp_path, encoder_of("jinja", chat_tokenizer("qwen2_5")), ignore=False)
    with pytest.raises(SwiftError, match="the prompts differ"):
        parity.require_same_template(tmp_path, encoder_of("jinja", chat_tokenizer("qwen3")), ignore=False)


def test_dated_templates_do_not_differ_from_one_day_to_the_next(
    chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    encoder = encoder_of("jinja", chat_tokenizer("gptoss"))
    (prompt,) = (ids for name, ids in parity.certificate(encoder)["prompts"].items() if name == "one question")
    assert "Current date: 2024-07-26" in encoder.tokens.decode(prompt)


def test_checkpoints_without_a_certificate_pass_and_broken_ones_do_not(
    tmp_path: Path, golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    encoder = encoder_of("chatml", golden_tokenizer("smollm2-plus"))
    parity.require_same_template(tmp_path, encoder, ignore=False)
    (tmp_path / parity.FILE).write_text("{")
    with pytest.raises(SwiftError, match="not readable"):
        parity.require_same_template(tmp_path, encoder, ignore=False)


def test_certificate_is_json(golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]) -> None:
    made = parity.certificate(encoder_of("chatml", golden_tokenizer("smollm2-plus")))
    assert json.loads(json.dumps(made)) == made


def test_preflight_lets_a_good_template_pass(
    golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    good = encoder_of("llama", golden_tokenizer("smollm2-plus"))
    parity.preflight(good, _row(good, ROW), "rows.jsonl:5")


def test_preflight_refuses_a_template_that_never_ends_an_answer(
    chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    tokenizer = chat_tokenizer("smollm2")
    kept = tokenizer.chat_template
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    encoder = encoder_of("jinja", tokenizer)
    row = _row(encoder, ROW)
    tokenizer.chat_template = kept
    with pytest.raises(SwiftError, match="the end of the answer is never trained") as found:
        parity.preflight(encoder, row, "rows.jsonl:5")
    assert found.value.where == "rows.jsonl:5"
