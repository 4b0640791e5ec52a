"""Plain completions over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from .conftest import Running
from .test_chat_completions import events


def post(running: Running, prompt: Any, **fields: Any) -> httpx.Response:
    return httpx.post(f"{running.url}/v1/completions", json={"model": "tiny", "prompt": prompt, **fields})


def test_text(running) -> None:
    body = post(running, "hello there").json()
    assert body["object"] == "text_completion" and body["id"].startswith("cmpl-")
    assert body["choices"] == [{"index": 0, "text": "hello there", "finish_reason": "stop", "logprobs": None}]
    assert body["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 2,
        "total_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


@pytest.mark.parametrize("as_ids", [False, True])
def test_several_prompts_keep_their_order(running, tokenizer, as_ids: bool) -> None:
    prompts = ["first one", "second", "the third of them"]
    sent = [tokenizer(prompt)["input_ids"] for prompt in prompts] if as_ids else prompts
    choices = post(running, sent, n=2).json()["choices"]
    assert [choice["index"] for choice in choices] == list(range(6))
    assert [choice["text"] for choice in choices] == [prompt for prompt in prompts for _ in range(2)]
    chunks = events(post(running, sent, stream=True))
    texts = ["", "", ""]
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == prompts


def test_token_ids_are_used_as_they_are(running, tokenizer) -> None:
    ids = tokenizer("hello there")["input_ids"]
    assert post(running, ids).json()["choices"][0]["text"] == "hello there"
    assert running.engine.requests[-1].prompt_ids == tuple(ids)


def test_echo(running) -> None:
    assert post(running, "ab cd", echo=True).json()["choices"][0]["text"] == "ab cdab cd"
    text = "".join(c["choices"][0]["text"] for c in events(post(running, "ab cd", echo=True, stream=True)))
    assert text == "ab cdab cd"


def test_logprobs_in_both_forms(running) -> None:
    openai = post(running, "one two", logprobs=1).json()["choices"][0]["logprobs"]
    assert openai["tokens"] == ["one", " two"]
    assert openai["text_offset"] == [0, 3]
    assert openai["token_logprobs"] == [-0.5, -0.5]
    assert openai["top_logprobs"] == [{"one": -0.5}, {" two": -0.5}]
    older = post(running, "one two", logprobs=True, top_logprobs=1).json()["choices"][0]["logprobs"]
    assert [token["token"] for token in older["content"]] == ["one", " two"]
