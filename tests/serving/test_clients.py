"""Clients that were not written here: the openai package, litellm, curl, and schemathesis on our own OpenAPI."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Running
from .scripted import ScriptedEngine
from .test_chat_completions import REACT, WEATHER

openai = pytest.importorskip("openai", reason="the openai package is the client under test")
USER = [{"role": "user", "content": "hello there"}]


@pytest.fixture
def client(start):
    """The OpenAI client on a server with a key."""
    running: Running = start(api_key="sk-test")
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="sk-test", max_retries=0) as made:
        yield made


def test_openai_chat_and_stream(client) -> None:
    answer = client.chat.completions.create(model="tiny", messages=USER, n=2)
    assert [choice.message.content for choice in answer.choices] == ["hello there"] * 2
    assert answer.choices[0].finish_reason == "stop" and answer.usage.completion_tokens == 4
    stream = client.chat.completions.create(
        model="tiny", messages=USER, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "hello there"
    assert chunks[-1].usage.completion_tokens == 2
    with client.chat.completions.stream(model="tiny", messages=USER) as events:
        assert events.get_final_completion().choices[0].message.content == "hello there"


def test_openai_tools(start, tokenizer) -> None:
    running = start(ScriptedEngine(tokenizer, lambda prompt: REACT))
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="-", max_retries=0) as client:
        answer = client.chat.completions.create(model="tiny", messages=USER, tools=[WEATHER])
        (call,) = answer.choices[0].message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Rome"})
        with client.chat.completions.stream(model="tiny", messages=USER, tools=[WEATHER]) as events:
            final = events.get_final_completion().choices[0]
        assert final.finish_reason == "tool_calls"
        assert final.message.tool_calls[0].function.arguments == '{"city": "Rome"}'
        history = [
            *USER,
            answer.choices[0].message.model_dump(),
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ]
        client.chat.completions.create(model="tiny", messages=history, tools=[WEATHER])
        assert "sunny" in tokenizer.decode(running.engine.requests[-1].prompt_ids)


def test_openai_json_schema(start, tokenizer) -> None:
    from pydantic import BaseModel

    class City(BaseModel):
        name: str
        people: int

    running = start(ScriptedEngine(tokenizer, lambda prompt: '{"name": "Rome", "people": 3}'))
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="-", max_retries=0) as client:
        answer = client.chat.completions.parse(model="tiny", messages=USER, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Rome", people=3)
    assert "people" in running.engine.requests[-1].sampling.grammar.text


def test_openai_logprobs_completions_models(client) -> None:
    answer = client.chat.completions.create(model="tiny", messages=USER, logprobs=True, top_logprobs=1)
    assert [token.token for token in answer.choices[0].logprobs.content] == ["hello", " there"]
    text = client.completions.create(model="tiny", prompt=["ab", "cd"], logprobs=1)
    assert [choice.text for choice in text.choices] == ["ab", "cd"]
    assert text.choices[0].logprobs.token_logprobs == [-0.5]
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "swift"


def test_openai_errors(client) -> None:
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as missing:
        create(model="nope", messages=USER)
    assert missing.value.param == "model" and missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        create(model="tiny", messages=[{"role": "user", "content": "word " * 600}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.UnprocessableEntityError) as wrong:
        create(model="tiny", messages=USER, temperature=-1)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").chat.completions.create(model="tiny", messages=USER)


LITELLM = """
import json, sys, litellm
url = sys.argv[1]
ask = dict(model="openai/tiny", api_base=url, api_key="-", messages=[{"role": "user", "content": "hello there"}])
whole = litellm.completion(**ask).choices[0].message.content
pieces = "".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(stream=True, **ask))
try:
    litellm.completion(**{**ask, "model": "openai/nope"})
except litellm.NotFoundError:
    refused = True
print(json.dumps([whole, pieces, refused]))
"""


def test_litellm(start) -> None:
    pytest.importorskip("litellm", reason="litellm is the client under test")
    running = start()
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [sys.executable, "-c", LITELLM, f"{running.url}/v1"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == ["hello there", "hello there", True]


def test_curl(start) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is the client under test")
    running = start()
    body = json.dumps({"model": "tiny", "messages": USER, "stream": True})
    command = [curl, "-sN", f"{running.url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", body]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.stdout.endswith("data: [DONE]\n\n") and '"content":" there"' in done.stdout


@pytest.mark.slow
def test_schemathesis(start, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    if not program.exists():
        pytest.skip("schemathesis is the client under test")
    running = start()
    command = [
        program, "run", f"{running.url}/openapi.json", "--checks", "all", "--exclude-checks",
        # Positive data that our rules refuse all the same (a role out of order) is no fault of the schema.
        "positive_data_acceptance,negative_data_rejection",
        "--max-examples", "6", "--seed", "1", "--phases", "examples,coverage,fuzzing", "--workers", "1",
        "--request-timeout", "20", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:]
    assert running.engine.running == 0 and running.service.gate.answers == 0
