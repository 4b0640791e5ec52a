"""Guesses from the text before: what they are, and that no answer changes by them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from swift.engines.base import Constraint, Delta, Engine, Request, SamplingParams
from swift.engines.prompt_lookup import MOST, PromptLookup
from swift.engines.sync_engine import SyncEngine
from swift.engines.torch import TorchEngine


def test_the_latest_place_of_the_longest_run_is_what_counts() -> None:
    lookup = PromptLookup()
    assert lookup.guess([1, 2, 3, 4], 5) == []
    tokens = [1, 2, 3, 4, 9, 2, 3, 5, 6, 7, 1, 2, 3]
    assert lookup.guess(tokens, 2) == [4, 9]  # 1 2 3 is longer than the later 2 3
    assert lookup.guess([*tokens, 8, 2, 3], 3) == [8, 2, 3]
    assert lookup.guess([*tokens, 8, 2, 3], 0) == []


def test_a_text_that_repeats_itself_is_guessed_beyond_its_end() -> None:
    assert PromptLookup().guess([5, 1, 2, 1, 2, 1, 2], MOST) == [1, 2, 1, 2, 1, 2]
    assert PromptLookup().guess([4, 4, 4], 4) == [4, 4, 4, 4]


def test_guesses_grow_where_they_are_right_and_shrink_where_they_are_not() -> None:
    lookup, tokens = PromptLookup(), [*range(20), 0, 1, 2]
    sizes = []
    for right in (1, 0, 1, 3, 6):
        guess = lookup.guess(tokens, MOST)
        sizes.append(len(guess))
        lookup.learn(len(guess), right)
    assert sizes == [MOST, 1, 1, 3, MOST]


@pytest.mark.parametrize("size", range(1, 8))
def test_a_text_read_bit_by_bit_is_guessed_as_the_whole(size: int) -> None:
    tokens = [number * number % 11 for number in range(60)]
    lookup = PromptLookup()
    for end in range(size, len(tokens), size):
        assert lookup.guess(tokens[:end], MOST) == PromptLookup().guess(tokens[:end], MOST)


TEXT = "def add(a, b):\n    return a + b\n\ndef add(a, b, c):\n    return a + b"
SETTINGS: list[dict[str, Any]] = [
    {},
    {"max_tokens": 3},
    {"logprobs": 3},
    {"stop": ("1", " the", "ing")},
    {"min_tokens": 20, "stop_token_ids": tuple(range(0, 40000, 7))},
    {"repetition_penalty": 1.3, "frequency_penalty": 0.2},
    {"temperature": 0.7, "seed": 3, "top_k": 5},
    {"temperature": 1.5, "seed": 1, "n": 2},
    {"grammar": Constraint("regex", "(ab ?|cd ?){3,40}x")},
    {"grammar": Constraint("json", '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}')},
]


@pytest.fixture(scope="module")
def engines(tiny_llama_dir: Path) -> Iterator[tuple[SyncEngine, SyncEngine]]:
    """One that guesses and one that does not."""

    def start(guess: bool) -> SyncEngine:
        load = partial(AutoModelForCausalLM.from_pretrained, tiny_llama_dir, dtype=torch.float32)

        async def engine() -> Engine:
            return TorchEngine(load, AutoTokenizer.from_pretrained(tiny_llama_dir), guess=guess)

        return SyncEngine(engine)

    with start(True) as guessing, start(False) as plain:
        yield guessing, plain


def answer(engine: SyncEngine, ids: list[int], settings: dict[str, Any]) -> list[Delta]:
    sampling = SamplingParams(**{"max_tokens": 60, **settings})
    return list(engine.stream(Request(id="r", prompt_ids=tuple(ids), sampling=sampling)))


def test_answers_do_not_change_by_guesses(engines: tuple[SyncEngine, SyncEngine], tiny_llama_dir: Path) -> None:
    """Every delta is equal: tokens, text, log-probabilities to the last bit, and why it ends."""
    guessing, plain = engines
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    texts = [TEXT, "a", "one two three one two three one two", TEXT * 5]
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        for settings in SETTINGS:
            assert answer(guessing, ids, settings) == answer(plain, ids, settings), (text, settings)
    counts: Any = guessing.engine.guesses  # type: ignore[attr-defined]
    if counts.guessed == 0:
        pytest.skip("the kernels of this machine add up in another order for another number of rows")
    assert 0 < counts.right < counts.guessed


def test_the_next_turn_finds_what_was_guessed_right_and_not_what_was_wrong(
    engines: tuple[SyncEngine, SyncEngine], tiny_llama_dir: Path
) -> None:
    ids = AutoTokenizer.from_pretrained(tiny_llama_dir)(TEXT * 3)["input_ids"]
    both = []
    for engine in engines:
        first = [token for delta in answer(engine, ids, {}) for token in delta.token_ids]
        second = answer(engine, [*ids, *first, 7, 8, 9], {})
        assert second[0].cached_tokens == len(ids) + len(first) - 1
        both.append(second)
    assert both[0] == both[1]
