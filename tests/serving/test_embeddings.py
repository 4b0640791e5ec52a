"""Vectors over HTTP."""

from __future__ import annotations

import base64
import json
import struct

import httpx
import pytest

from .scripted import ScriptedEngine


def post(running, given, **fields) -> httpx.Response:
    body = json.dumps({"model": "tiny", "input": given, **fields})
    return httpx.post(f"{running.url}/v1/embeddings", content=body, headers={"Content-Type": "application/json"})


def test_every_form_of_input(running, tokenizer) -> None:
    ids = tokenizer("hello there")["input_ids"]
    for given, texts in (("hello there", 1), (["hello there", "a"], 2), (ids, 1), ([ids, [5]], 2)):
        body = post(running, given).json()
        assert [each["index"] for each in body["data"]] == list(range(texts))
        assert body["data"][0] == {"object": "embedding", "index": 0, "embedding": [2.0, 0.5]}
        assert (body["object"], body["model"]) == ("list", "tiny")
        assert body["usage"] == {"prompt_tokens": 2 + texts - 1, "total_tokens": 2 + texts - 1}
    assert running.service.gate.answers == 0
    metrics = httpx.get(f"{running.url}/metrics").text
    assert 'swift_requests_total{route="/v1/embeddings",status="200"} 4.0' in metrics


def test_base64_is_32_bit_floats_and_dimensions_are_the_models_own(running) -> None:
    assert post(running, "hello", encoding_format=None, dimensions=None).json()["data"][0]["embedding"] == [1.0, 0.5]
    data = post(running, "hello", encoding_format="base64", dimensions=2).json()["data"]
    assert struct.unpack("<2f", base64.b64decode(data[0]["embedding"])) == (1.0, 0.5)


def test_an_adapter_has_vectors_of_its_own(start, tokenizer) -> None:
    running = start(ScriptedEngine(tokenizer, adapters=("tuned",)))
    body = httpx.post(f"{running.url}/v1/embeddings", json={"model": "tuned", "input": "a"}).json()
    assert body["data"][0]["embedding"] == [1.0, -0.5]


@pytest.mark.parametrize(
    ("given", "fields", "status", "param"),
    [
        ("", {}, 400, "input"),
        (["a", ""], {}, 400, "input"),
        ([], {}, 422, "input"),
        ([[]], {}, 422, "input"),
        (["a"] * 2049, {}, 422, "input"),
        ([10**6], {}, 400, "input"),
        ("word " * 600, {}, 400, "input"),
        ("a", {"dimensions": 1}, 400, "dimensions"),
        ("a", {"encoding_format": "int8"}, 422, "encoding_format"),
        ("a", {"model": "nope"}, 404, "model"),
        ("\ud800", {}, 422, "body"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_field(module_server, given, fields, status: int, param: str) -> None:
    answer = post(module_server, given, **fields)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"].startswith(param)


def test_an_engine_without_vectors_says_so(start, tokenizer) -> None:
    engine = ScriptedEngine(tokenizer)
    engine.vectors = False
    answer = post(start(engine), "a")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_embeddings")
    assert "--infer_backend pt" in answer.json()["message"]


def test_the_openai_client_reads_them(running) -> None:
    openai = pytest.importorskip("openai", reason="the openai package is the client under test")
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="-", max_retries=0) as client:
        assert client.embeddings.create(model="tiny", input=["hello there"]).data[0].embedding == [2.0, 0.5]
