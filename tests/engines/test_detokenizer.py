"""Text piece by piece: whole characters, no beginnings of stop strings."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from swift.engines.detokenizer import Detokenizer, StopStrings

TEXTS = (
    "Hello world, this is plain text.",
    "日本語と한국어, 中文",
    "👩‍👩‍👧‍👦 family 🇫🇷 flag",
    "tabs\tand\n\nnewlines  and   spaces ",
    "é́ combining",
)


@pytest.fixture(scope="module")
def tokenizer(smollm2_tokenizer_dir: Path):
    return AutoTokenizer.from_pretrained(smollm2_tokenizer_dir)


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_text_and_are_whole_characters(tokenizer, text: str) -> None:
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.add(token_id) for token_id in tokenizer(text)["input_ids"]]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert detokenizer.rest() == ""


def test_half_a_character_at_the_end_is_shown_as_broken(tokenizer) -> None:
    detokenizer = Detokenizer(tokenizer)
    ids = tokenizer("ok 👩")["input_ids"][:-1]
    assert "".join(detokenizer.add(token_id) for token_id in ids) == "ok"
    assert detokenizer.rest().strip() == "\ufffd"


def test_special_tokens_have_no_text(tokenizer) -> None:
    detokenizer = Detokenizer(tokenizer)
    ids = [*tokenizer("a")["input_ids"], tokenizer.eos_token_id, *tokenizer("b")["input_ids"]]
    assert "".join(map(detokenizer.add, ids)) + detokenizer.rest() == "ab"


def test_a_stop_string_is_found_across_pieces_and_the_earliest_counts() -> None:
    stops = StopStrings(("END", "STOP"))
    assert stops.add("one S") == ("one ", False)
    assert stops.add("TO") == ("", False)
    assert stops.add("LE") == ("STOL", False)
    assert stops.add("ND STOP") == ("", True)


def test_what_was_held_back_comes_out_in_the_end() -> None:
    stops = StopStrings(("\nObservation:",))
    assert stops.add("text\nObs") == ("text", False)
    assert stops.rest() == "\nObs"
    assert stops.rest() == ""


def test_without_stop_strings_nothing_is_held() -> None:
    assert StopStrings(("",)).add("anything") == ("anything", False)
