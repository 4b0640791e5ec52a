"""The encoder: batches, truncation, preferences, stops, and what its fingerprint depends on."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.fixtures.shown import Pictures

from swift.core.errors import SwiftError
from swift.prompts.encode import Encoder, TooLong
from swift.prompts.images import IN_ANSWER, OTHER_TAG, UNTAGGED, odd_tags, without_answer
from swift.prompts.types import Conversation, Media, Message, Origin, Preference

ASK, SAY = Message("user", "Who are you?"), Message("assistant", "A robot.")
ROW = Conversation((ASK, SAY), origin=Origin("rows.jsonl", 4))
TURNS = Conversation((ASK, SAY, Message("user", "你好"), Message("assistant", "Hello there.")))


@pytest.mark.parametrize("template", ["chatml", "default", "llama3", "deepseek2"])
def test_batch_is_one_by_one(
    template: str, golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    encoder = encoder_of(template, golden_tokenizer("smollm2-plus"))
    rows = [ROW, TURNS, ROW, Conversation((ASK,))]
    assert encoder.encode_batch(rows) == [encoder.encode(row) for row in rows]


def test_a_faulty_row_does_not_spoil_its_batch(
    golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    encoder = encoder_of("chatml", golden_tokenizer("smollm2-plus"), max_length=20)
    long = Conversation((ASK, Message("assistant", "word " * 50)), origin=Origin("rows.jsonl", 9))
    good, faulty, dropped, last = encoder.encode_batch([ROW, Conversation((ASK, ASK)), long, ROW])
    assert good == last == encoder.encode(ROW)
    assert isinstance(faulty, SwiftError)
    assert isinstance(dropped, TooLong)
    assert (dropped.limit, dropped.where) == (20, "rows.jsonl:9")


def test_truncation_says_how_much(golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]) -> None:
    tokenizer = golden_tokenizer("smollm2-plus")
    (whole,) = encoder_of("chatml", tokenizer).encode(ROW)
    cut = encoder_of("chatml", tokenizer, max_length=6, truncation_strategy="truncation_left").encode(ROW)[0]
    assert cut.input_ids == whole.input_ids[-6:]
    assert cut.labels == whole.labels[-6:]
    assert cut.truncated == len(whole.input_ids) - 6


@pytest.mark.parametrize("head", ["<|im_start|>", "Picture 1: <|im_start|>", ""])
def test_what_opens_an_image_is_not_cut_off_it(
    head: str, golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder], tmp_path: Path
) -> None:
    tokenizer = golden_tokenizer("smollm2-plus")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    asked = Message("user", "a few words <image> and more")
    row = Conversation((asked, Message("assistant", "yes")), media=Media((str(tmp_path / "a.png"),)))
    piece = "<|endoftext|>"
    shown = Pictures(head + piece * 3 + "<|im_end|>", piece, tokenizer.convert_tokens_to_ids(piece))
    (whole,) = encoder_of("chatml", tokenizer, images=shown).encode(row)
    kept = []
    for limit in range(1, len(whole.input_ids)):
        encoder = encoder_of("chatml", tokenizer, images=shown, max_length=limit, truncation_strategy="truncation_left")
        with suppress(TooLong):
            kept.append(tokenizer.decode(encoder.encode(row)[0].input_ids))
    assert len(kept) > 5
    assert kept[0].strip().startswith(head + piece * 3)


def test_media_of_an_answer_are_not_in_the_prompt_to_it(
    golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    tokenizer, piece = golden_tokenizer("smollm2-plus"), "<|endoftext|>"
    pictures = Pictures(f"[{piece}]", piece, tokenizer.convert_tokens_to_ids(piece))
    encoder = encoder_of("chatml", tokenizer, images=pictures)

    def row(query: str, response: str, *images: str) -> Conversation:
        return Conversation((Message("user", query), Message("assistant", response)), media=Media(images=images))

    def prompt(given: Conversation) -> tuple[str, tuple[str, ...]]:
        (encoded,) = encoder.encode(without_answer(given), inference=True)
        text = tokenizer.decode(encoded.input_ids).partition("user\n")[2]
        return text.partition("<|im_end|>")[0], encoded.media.images

    assert prompt(row("See <image>", "like <image>", "a", "b")) == (f"See [{piece}]", ("a",))
    assert prompt(row("See", "like <image>", "a", "b")) == (f"[{piece}]See", ("a",))
    assert prompt(row("See", "like <image>", "a")) == ("See", ())
    assert prompt(row("See", "this", "a", "b")) == (f"[{piece}][{piece}]See", ("a", "b"))
    (trained,) = encoder.encode(row("See <image>", "like <image>", "a", "b"))
    assert IN_ANSWER in trained.rewrites and trained.media.images == ("a", "b")
    (usual,) = encoder.encode(row("See <image>", "this", "a"))
    assert IN_ANSWER not in usual.rewrites
    good = Preference(row("<image>?", "x <image>", "a", "b"), row("<image>?", "<image> y", "a", "b"))
    assert encoder.encode_preference(good).chosen.media.images == ("a", "b")
    with pytest.raises(SwiftError, match="their prompts would differ"):
        encoder.encode_preference(Preference(good.chosen, row("<image>?", "y", "a", "b")))


def test_tags_of_other_tools_are_remarked_on_where_media_have_no_tag() -> None:
    def remarks(query: str, *images: str) -> tuple[str, ...]:
        return odd_tags(Conversation((Message("user", query), SAY), media=Media(images=images)))

    for query in (
        "See <image 1>",
        "<image_1>",
        "<IMAGE>?",
        "<image/>",
        "<|image_1|>",
        "<ImageHere>",
        "<start_of_image>",
    ):
        assert remarks(query, "a") == (OTHER_TAG,)
    assert remarks("<image> and <image 2>", "a", "b") == (UNTAGGED, OTHER_TAG)
    for query, images in (("<image>, as <image 1>", "a"), ("See image 1", "a"), ("<imagery>", "a"), ("<image 1>", "")):
        assert remarks(query, *images) == ()


def test_settings_left_by_a_padded_call_do_not_matter(
    golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    tokenizer = golden_tokenizer("smollm2-plus")
    encoder = encoder_of("chatml", tokenizer)
    before = encoder.encode_batch([ROW, TURNS])
    tokenizer(["a", "a much longer text"], padding=True, truncation=True, max_length=3)
    assert encoder.encode_batch([ROW, TURNS]) == before


def test_ids_are_those_of_calling_the_tokenizer(
    golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    encoder = encoder_of("default", golden_tokenizer("smollm2-plus"))
    fast = encoder.encode_batch([ROW, TURNS])
    encoder.tokens._backend = None
    assert encoder.encode_batch([ROW, TURNS]) == fast


def test_encoder_goes_to_worker_processes(
    golden_tokenizer: Callable[[str], Any], chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    for encoder in (
        encoder_of("chatml", golden_tokenizer("smollm2-plus"), loss_scale="default"),
        encoder_of("jinja", chat_tokenizer("qwen3")),
    ):
        copy = pickle.loads(pickle.dumps(encoder))
        assert copy.encode(TURNS) == encoder.encode(TURNS)
        assert copy.fingerprint == encoder.fingerprint


def test_fingerprint_follows_what_decides_the_encoding(
    golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    tokenizer = golden_tokenizer("smollm2-plus")
    plans: list[dict[str, Any]] = [
        {},
        {"system": "Be short."},
        {"max_length": 100},
        {"max_length": 100, "truncation_strategy": "truncation_left"},
        {"loss_scale": "default"},
        {"loss_scale": "agent-flan"},
        {"tools_format": "react_zh"},
    ]
    prints = {encoder_of("chatml", tokenizer, **plan).fingerprint for plan in plans}
    prints |= {encoder_of("qwen", tokenizer).fingerprint, encoder_of("chatml", golden_tokenizer("smollm2")).fingerprint}
    assert len(prints) == len(plans) + 2
    assert encoder_of("chatml", tokenizer).fingerprint in prints


def test_stops(
    golden_tokenizer: Callable[[str], Any], chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    plus = golden_tokenizer("smollm2-plus")
    chatml = encoder_of("chatml", plus)
    assert chatml.stop_strings == ("<|im_end|>",)
    assert chatml.stop_token_ids == (plus.convert_tokens_to_ids("<|im_end|>"), plus.eos_token_id)
    assert chatml.tool_stop_strings == ("Observation:",)
    default = encoder_of("default", plus)
    assert default.stop_strings == ()
    assert default.stop_token_ids == (plus.eos_token_id,)
    qwen = encoder_of("jinja", chat_tokenizer("qwen3"))
    assert qwen.stop_strings == ("<|im_end|>",)


def test_preference_trains_the_last_answer_of_both_ends(
    golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder], shown: Callable[..., str]
) -> None:
    encoder = encoder_of("chatml", golden_tokenizer("smollm2-plus"))
    worse = Conversation((*TURNS.messages[:-1], Message("assistant", "Go away.")))
    found = encoder.encode_preference(Preference(TURNS, worse))
    assert found.rejected is not None
    assert shown(encoder, found.chosen).count("⟦") == shown(encoder, found.rejected).count("⟦") == 1
    assert shown(encoder, found.rejected).endswith("⟦Go away.<|im_end|>⟧")
    everything = encoder.encode_preference(Preference(TURNS, worse), rounds="all")
    assert everything.chosen == encoder.encode(TURNS)[0]
    single = encoder.encode_preference(Preference(TURNS, label=False))
    assert (single.rejected, single.label) == (None, False)


def test_preference_under_a_template_that_rewrites(
    chat_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder], shown: Callable[..., str]
) -> None:
    encoder = encoder_of("jinja", chat_tokenizer("qwen3"))
    found = encoder.encode_preference(Preference(TURNS, TURNS))
    assert found.chosen == found.rejected
    assert shown(encoder, found.chosen).count("⟦") == 1


def test_unknown_template_is_answered_with_the_nearest(
    golden_tokenizer: Callable[[str], Any], encoder_of: Callable[..., Encoder]
) -> None:
    with pytest.raises(SwiftError, match="no template called 'chatm'") as found:
        encoder_of("chatm", golden_tokenizer("smollm2"))
    assert "chatml" in str(found.value.next)
