"""The bytes of the tokens together are the text, in each way a vocabulary can write them."""

from __future__ import annotations

import httpx
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from swift.engines.base import TokenLogprob
from swift.serving.logprobs import Logprobs
from swift.serving.token_bytes import TokenBytes

from .scripted import ScriptedEngine
from .test_chat_completions import events

TEXT = "Grüße 👩‍🚀 из 東京, \t end"


@pytest.fixture(scope="module")
def sentencepiece() -> PreTrainedTokenizerFast:
    """A vocabulary as Llama 2's: spaces are ▁, characters that are missing fall back to bytes."""
    pieces = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"Grend", "▁G"]
    plain = Tokenizer(models.BPE({each: at for at, each in enumerate(pieces)}, [("▁", "G")], byte_fallback=True))
    plain.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    plain.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="</s>", unk_token="<unk>")


def logprobs(tokenizer, ids: list[int]) -> list[TokenLogprob]:
    return [TokenLogprob(tokenizer.decode([each]), each, -1.0) for each in ids]


@pytest.mark.parametrize("kind", ["tokenizer", "sentencepiece"])
def test_bytes_make_the_text(kind: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(kind)
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    tokens = logprobs(tokenizer, [*ids, tokenizer.eos_token_id])
    assert any("\ufffd" in token.token for token in tokens), "a character of several tokens is part of the test"
    content = Logprobs(TokenBytes(tokenizer)).chat(tokens)["content"]
    assert content[-1]["bytes"] is None
    assert b"".join(bytes(each["bytes"] or ()) for each in content).decode() == TEXT
    # In a stream the pieces give the same.
    writer = Logprobs(TokenBytes(tokenizer))
    assert [each for token in tokens for each in writer.chat([token])["content"]] == content


@pytest.mark.parametrize("kind", ["tokenizer", "sentencepiece"])
def test_the_older_form_counts_characters_and_keeps_parts_of_them_apart(kind: str, request) -> None:
    tokenizer = request.getfixturevalue(kind)
    tokens = logprobs(tokenizer, tokenizer(TEXT, add_special_tokens=False)["input_ids"])
    older = Logprobs(TokenBytes(tokenizer)).older(tokens)
    assert older["text_offset"] == sorted(older["text_offset"]) and older["text_offset"][0] == 0
    whole = [(at, name) for at, name in zip(older["text_offset"], older["tokens"], strict=True) if "bytes:" not in name]
    assert all(TEXT[at:].startswith(name) for at, name in whole[1:] if not (kind == "sentencepiece" and name == ""))
    assert any(name.startswith("bytes:\\x") for name in older["tokens"])


def test_ids_without_a_token_and_tokens_without_an_id(tokenizer) -> None:
    tokens = TokenBytes(tokenizer)
    assert tokens.of(10**6, "") == b""
    assert tokens.of(-1, "é") == "é".encode()


def test_over_http(running) -> None:
    body = {"model": "tiny", "prompt": TEXT, "logprobs": True}
    content = httpx.post(f"{running.url}/v1/completions", json=body).json()["choices"][0]["logprobs"]["content"]
    assert b"".join(bytes(each["bytes"]) for each in content).decode() == TEXT


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_goes_on_from_its_prompt_with_its_first_space(start, sentencepiece, stream: bool) -> None:
    running = start(ScriptedEngine(sentencepiece, lambda prompt: "Gren"))
    prompt = sentencepiece("End")["input_ids"]
    body = {"model": "tiny", "prompt": prompt, "logprobs": True, "stream": stream, "max_tokens": 3}
    response = httpx.post(f"{running.url}/v1/completions", json=body)
    choices = [chunk["choices"][0] for chunk in (events(response) if stream else [response.json()])]
    assert "".join(choice["text"] for choice in choices) == " Gre"
    content = [each for choice in choices for each in (choice["logprobs"] or {"content": []})["content"]]
    assert b"".join(bytes(each["bytes"]) for each in content) == b" Gre"
