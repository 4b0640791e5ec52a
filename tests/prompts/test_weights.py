"""Weights of messages: an answer and its end count the same, under every template."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest

from swift.catalog import load_catalog
from swift.prompts.encode import Encoder
from swift.prompts.types import IGNORED, Conversation, Encoded, Message

CATALOG = load_catalog()
SEVERAL_TURNS = [name for name in CATALOG.templates if CATALOG.templates.get(name).separator is not None]
JINJA = ["qwen2_5", "gemma3", "llama3_1", "deepseek_v3"]


def weighted_turns(*weights: float | None) -> Conversation:
    turns = [
        (Message("user", f"ask {i}"), Message("assistant", f"say {i}", weight=weight))
        for i, weight in enumerate(weights)
    ]
    return Conversation(tuple(message for turn in turns for message in turn))


def trained_spans(encoded: Encoded) -> list[set[float]]:
    """The weights in each unbroken run of trained tokens."""
    scales = encoded.loss_scale or [1.0] * len(encoded.labels)
    runs = groupby(zip(encoded.labels, scales, strict=True), key=lambda token: token[0] == IGNORED)
    return [{scale for _, scale in run} for ignored, run in runs if not ignored]


def trained_labels(labels: list[int]) -> list[int]:
    return [label for label in labels if label != IGNORED]


@pytest.mark.parametrize("name", SEVERAL_TURNS)
def test_the_end_of_every_answer_has_its_weight(
    name: str, golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    encoder = encoder_of(name, golden_tokenizer("smollm2-plus"))
    (plain,) = encoder.encode(weighted_turns(None, None, None))
    (encoded,) = encoder.encode(weighted_turns(0.25, None, 0.5))
    assert trained_spans(encoded) == [{0.25}, {1.0}, {0.5}]
    assert (encoded.input_ids, encoded.labels) == (plain.input_ids, plain.labels)
    assert trained_spans(encoder.encode(weighted_turns(0.5, 0, None))[0]) == [{0.5}, {1.0}]
    last = len(plain.labels) - plain.labels[::-1].index(IGNORED)
    silent_last = encoder.encode(weighted_turns(None, None, 0))[0].labels
    assert trained_labels(silent_last) == trained_labels(plain.labels[:last])


@pytest.mark.parametrize("name", JINJA)
def test_the_end_of_every_answer_has_its_weight_under_chat_templates(
    name: str, chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    (encoded,) = encoder_of("jinja", chat_tokenizer(name)).encode(weighted_turns(0.25, None, 0.5))
    assert trained_spans(encoded) == [{0.25}, {1.0}, {0.5}]


def test_rules_of_loss_scale_multiply_weights_and_alone_leave_earlier_ends_out(
    golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    encoder = encoder_of("chatml", golden_tokenizer("smollm2-plus"), loss_scale={"say": [2.0, 3.0]})
    assert trained_spans(encoder.encode(weighted_turns(None, None))[0]) == [{2.0, 3.0, 0.0}, {2.0, 3.0, 1.0}]
    assert trained_spans(encoder.encode(weighted_turns(0.5, None))[0]) == [{1.0, 1.5, 0.5}, {2.0, 3.0, 1.0}]
