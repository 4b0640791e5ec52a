"""Scores of answers over HTTP: vLLM's form, what they are computed from, and what a reward model refuses."""

from __future__ import annotations

import math
from collections.abc import Iterator

import httpx
import pytest

from .conftest import Running, servers
from .scripted import ScriptedEngine

TURN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>"


@pytest.fixture(scope="module")
def judging(tokenizer, encoder) -> Iterator[Running]:
    """A server whose adapter `judge` is a reward model."""
    with servers(tokenizer, encoder) as go:
        yield go(ScriptedEngine(tokenizer, adapters=("judge",)), frozenset({"judge"}))


def post(running: Running, route: str = "score", **fields: object) -> httpx.Response:
    return httpx.post(f"{running.url}/v1/{route}", json={"model": "judge", **fields})


def test_prompts_and_answers_under_all_names_of_vllm(judging: Running) -> None:
    for one, two in (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")):
        body = post(judging, **{one: "hello", two: ["there", "you"]}).json()
        assert judging.engine.scored == [TURN.format("hello", "there"), TURN.format("hello", "you")]
        assert [(each["index"], each["object"]) for each in body["data"]] == [(0, "score"), (1, "score")]
        assert (body["object"], body["model"]) == ("list", "judge") and body["id"].startswith("score-")
        tokens = [score["score"] + 20 for score in body["data"]]
        usage = {"prompt_tokens": sum(tokens), "total_tokens": sum(tokens), "completion_tokens": 0}
        assert body["usage"] == usage
    post(judging, text_1=["a", "b"], text_2=["c", "d"], messages=None)
    assert judging.engine.scored == [TURN.format("a", "c"), TURN.format("b", "d")]


def test_a_conversation_with_its_answer(judging: Running) -> None:
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    messages = [{"role": role, "content": text} for role, text in turns]
    score = post(judging, messages=messages).json()["data"][0]["score"]
    assert judging.engine.scored == [TURN.format("a", "b") + "\n" + TURN.format("c", "d")]
    squashed = post(judging, messages=messages, use_activation=True).json()["data"][0]["score"]
    assert squashed == pytest.approx(1 / (1 + math.exp(-score)))


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({}, 422, "text_1"),
        ({"text_1": "a"}, 422, "text_2"),
        ({"text_1": ["a", "b"], "text_2": "c"}, 400, "text_1"),
        ({"text_1": "a", "text_2": []}, 422, "text_2"),
        ({"text_1": "a", "text_2": "word " * 600}, 400, "text_2"),
        ({"text_1": "a", "text_2": "b", "truncate_prompt_tokens": 5}, 400, "truncate_prompt_tokens"),
        ({"messages": [{"role": "user", "content": "a"}]}, 400, "messages"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "a"}], "text_2": "b"}, 400, "text_2"),
        ({"text_1": "a", "text_2": "b", "model": "nope"}, 404, "model"),
        ({"text_1": "a", "text_2": "b", "model": "tiny"}, 400, "model"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_its_field(judging: Running, fields, status: int, param: str) -> None:
    answer = post(judging, **fields)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"].startswith(param)


def test_a_reward_model_gives_scores_only_and_its_base_answers(judging: Running) -> None:
    chat = {"messages": [{"role": "user", "content": "hello"}]}
    for route, fields in (("chat/completions", chat), ("completions", {"prompt": "a"}), ("embeddings", {"input": "a"})):
        answer = post(judging, route, **fields)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "reward_model")
        assert "/v1/score" in answer.json()["message"]
        assert post(judging, route, **fields, model="tiny").status_code == 200
    assert "judge" in post(judging, text_1="a", text_2="b", model="tiny").json()["message"]
    cards = httpx.get(f"{judging.url}/v1/models").json()["data"]
    assert {card["id"]: card["is_chat"] for card in cards} == {"tiny": True, "judge": False}
