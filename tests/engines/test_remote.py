"""A server of the OpenAI API behind the Engine protocol: the wire, the refusals, and this project's own server."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from serving.conftest import Running, servers
from serving.scripted import ScriptedEngine
from swift.catalog import load_catalog
from swift.core.errors import SwiftError
from swift.engines.base import Constraint, Delta, Request, SamplingParams
from swift.engines.openai_wire import completion_body
from swift.engines.remote import RemoteEngine, RemoteSettings
from swift.plan.prompt import PromptPlan
from swift.prompts.encode import build_encoder
from swift.prompts.types import Conversation, Media, Message, ToolCall

Reply = tuple[int, Iterable[bytes]]


@dataclass
class Wire:
    """A server that answers as the test says and keeps what it was asked."""

    url: str = ""
    reply: Callable[[dict[str, Any]], Reply] = lambda body: (404, [b"{}"])
    models: Reply = (200, [b'{"data": [{"id": "base", "max_model_len": 99}, {"id": "tuned"}]}'])
    retry_after: str = "0"
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            wire.keys.append(self.headers["Authorization"])
            self._send(*wire.models)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            wire.asked.append((self.path, body))
            self._send(*wire.reply(body))

        def _send(self, status: int, pieces: Iterable[bytes]) -> None:
            self.send_response(status)
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Retry-After", wire.retry_after)
            self.end_headers()
            try:
                for piece in pieces:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")
            except OSError:
                wire.gone.set()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    wire.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield wire
    server.shutdown()
    server.server_close()


def _event(**choice: Any) -> bytes:
    return f"data: {json.dumps({'choices': [{'index': 0, 'text': '', **choice}]}, ensure_ascii=False)}\n\n".encode()


DONE = b"data: [DONE]\n\n"


def _ask(settings: RemoteSettings, *, adapter: str | None = None, **sampling: Any) -> list[Delta]:
    """All deltas of one request."""

    async def go() -> list[Delta]:
        engine = await RemoteEngine.start(settings)
        request = Request(
            id="r", prompt_ids=(5, 6, 7), sampling=SamplingParams(**{"max_tokens": 4, **sampling}), adapter=adapter
        )
        try:
            return [delta async for delta in engine.stream(request)]
        finally:
            await engine.close()

    return asyncio.run(go())


def test_the_prompt_goes_out_as_token_ids_and_deltas_come_back(wire: Wire) -> None:
    wire.reply = lambda body: (
        200,
        [_event(text="Hel", token_ids=[1, 2]), _event(text="lo", finish_reason="stop"), DONE],
    )
    deltas = _ask(RemoteSettings(url=wire.url))
    (path, body) = wire.asked[0]
    assert path == "/v1/completions"
    assert (body["prompt"], body["model"], body["stream"]) == ([5, 6, 7], "base", True)
    assert [(delta.text, delta.token_ids, delta.finish_reason) for delta in deltas] == [
        ("Hel", (1, 2), None),
        ("lo", (), "stop"),
    ]


def test_every_sampling_field_has_its_place_on_the_wire() -> None:
    wish = SamplingParams(
        max_tokens=3,
        temperature=0.5,
        top_k=4,
        top_p=0.6,
        repetition_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        logit_bias=((7, -1.5),),
        n=2,
        seed=9,
        min_tokens=1,
        stop=("a", "b"),
        stop_token_ids=(5,),
        logprobs=2,
        min_p=0.1,
        ignore_eos=True,
        grammar=Constraint("json", '{"type": "array"}'),
    )
    assert completion_body(wish, extensions=True) == {
        "max_tokens": 3,
        "temperature": 0.5,
        "top_k": 4,
        "top_p": 0.6,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "logit_bias": {"7": -1.5},
        "n": 2,
        "seed": 9,
        "min_tokens": 1,
        "stop": ["a", "b"],
        "stop_token_ids": [5],
        "logprobs": 2,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "array"}}},
        "min_p": 0.1,
        "ignore_eos": True,
        "return_token_ids": True,
    }


def test_a_server_without_extensions_gets_none() -> None:
    plain = SamplingParams(max_tokens=3, top_k=5, stop_token_ids=(2,))
    assert completion_body(plain, extensions=False) == {"max_tokens": 3, "temperature": 0.0, "top_p": 1.0, "n": 1}
    with pytest.raises(SwiftError, match="takes no `top_k`"):
        completion_body(SamplingParams(max_tokens=3, top_k=5, temperature=1.0), extensions=False)


def test_beam_search_is_refused() -> None:
    with pytest.raises(SwiftError, match="no beam search"):
        completion_body(SamplingParams(max_tokens=3, num_beams=2), extensions=True)


def test_events_survive_any_cut_and_a_line_separator_in_the_text(wire: Wire) -> None:
    stream = (
        b": ping\n\n" + _event(text="a\u2028b é 中") + _event(text="c", finish_reason="length").replace(b"\n", b"\r\n")
    )
    wire.reply = lambda body: (200, [stream[at : at + 7] for at in range(0, len(stream), 7)] + [DONE])
    deltas = _ask(RemoteSettings(url=wire.url))
    assert "".join(delta.text for delta in deltas) == "a\u2028b é 中c"
    assert deltas[-1].finish_reason == "length"


def test_logprobs_come_back(wire: Wire) -> None:
    logprobs = {"tokens": ["Hi"], "token_logprobs": [-0.5], "top_logprobs": [{"Hi": -0.5, "Ho": -1.5}]}
    wire.reply = lambda body: (200, [_event(text="Hi", token_ids=[8], logprobs=logprobs, finish_reason="stop"), DONE])
    (logprob,) = _ask(RemoteSettings(url=wire.url), logprobs=2)[0].logprobs
    assert (logprob.token, logprob.token_id, logprob.logprob) == ("Hi", 8, -0.5)
    assert logprob.top == (("Hi", -1, -0.5), ("Ho", -1, -1.5))


def test_several_answers_keep_their_numbers(wire: Wire) -> None:
    wire.reply = lambda body: (200, [_event(index=1, text="b", finish_reason="stop"), _event(text="a"), DONE])
    deltas = _ask(RemoteSettings(url=wire.url), n=2)
    assert [(delta.index, delta.text, delta.finish_reason) for delta in deltas] == [
        (1, "b", "stop"),
        (0, "a", None),
        (0, "", "error"),
    ]
    assert "before the answer was finished" in (deltas[-1].error or "")


def test_an_error_in_the_stream_ends_the_answer(wire: Wire) -> None:
    broken = b'data: {"error": {"message": "out of memory"}}\n\n'
    wire.reply = lambda body: (200, [_event(text="a"), broken])
    assert _ask(RemoteSettings(url=wire.url))[-1].error == "out of memory"


def test_an_event_that_is_no_json_ends_the_answer(wire: Wire) -> None:
    wire.reply = lambda body: (200, [_event(text="a"), b"data: {broken\n\n"])
    assert "no JSON object" in (_ask(RemoteSettings(url=wire.url))[-1].error or "")


def test_a_server_that_falls_silent_ends_the_answer(wire: Wire) -> None:
    def slow() -> Iterator[bytes]:
        yield _event(text="a")
        time.sleep(0.6)

    wire.reply = lambda body: (200, slow())
    deltas = _ask(RemoteSettings(url=wire.url, timeout=0.2))
    assert (deltas[-1].finish_reason, deltas[-1].error) == ("error", "ReadTimeout")


def test_closing_the_stream_closes_the_connection(wire: Wire) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            time.sleep(0.01)
            yield _event(text="a")

    wire.reply = lambda body: (200, endless())

    async def go() -> None:
        engine = await RemoteEngine.start(RemoteSettings(url=wire.url))
        stream = engine.stream(Request(id="r", prompt_ids=(1,), sampling=SamplingParams(max_tokens=4)))
        await anext(stream)
        assert engine.statistics()["running"] == 1
        await stream.aclose()  # type: ignore[attr-defined]
        assert engine.statistics()["running"] == 0
        await asyncio.to_thread(wire.gone.wait, 5)
        await engine.close()

    asyncio.run(go())
    assert wire.gone.is_set()


def test_a_busy_server_is_asked_again(wire: Wire) -> None:
    replies = iter([(429, [b"{}"]), (503, [b"{}"]), (200, [_event(text="a", finish_reason="stop"), DONE])])
    wire.reply = lambda body: next(replies)
    assert _ask(RemoteSettings(url=wire.url))[0].text == "a"
    assert len(wire.asked) == 3


def test_a_server_that_stays_busy_is_an_error(wire: Wire) -> None:
    wire.reply = lambda body: (429, [b'{"error": {"message": "queue full"}}'])
    with pytest.raises(SwiftError, match="too busy"):
        _ask(RemoteSettings(url=wire.url, retries=1))
    assert len(wire.asked) == 2


def test_a_server_that_takes_no_token_ids_is_an_error_that_says_so(wire: Wire) -> None:
    wire.reply = lambda body: (400, [b'{"error": {"message": "prompt must be a string"}}'])
    with pytest.raises(SwiftError, match="refuses the request") as caught:
        _ask(RemoteSettings(url=wire.url))
    assert caught.value.why == "400 prompt must be a string"
    assert "token ids" in (caught.value.next or "")


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://127.0.0.1/", "http://", "http://a:b", "http://[::1"])
def test_what_is_no_address_is_an_error(url: str) -> None:
    with pytest.raises(SwiftError, match="not the address of a server"):
        asyncio.run(RemoteEngine.start(RemoteSettings(url=url)))


def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(SwiftError, match="cannot be reached"):
        asyncio.run(RemoteEngine.start(RemoteSettings(url="http://127.0.0.1:9")))


def test_what_is_no_openai_server_is_an_error(wire: Wire) -> None:
    wire.models = (200, [b"<html>"])
    with pytest.raises(SwiftError, match="no OpenAI server"):
        asyncio.run(RemoteEngine.start(RemoteSettings(url=wire.url)))


def test_a_key_that_is_refused_is_an_error(wire: Wire) -> None:
    wire.models = (401, [b'{"error": {"message": "wrong key"}}'])
    with pytest.raises(SwiftError, match="does not take the key") as caught:
        asyncio.run(RemoteEngine.start(RemoteSettings(url=wire.url, api_key="k")))
    assert caught.value.why == "wrong key"
    assert wire.keys == ["Bearer k"]


def test_the_model_is_the_named_one_or_the_first(wire: Wire) -> None:
    async def go(model: str | None) -> tuple[str, int, tuple[str, ...]]:
        engine = await RemoteEngine.start(RemoteSettings(url=f"{wire.url}/v1/", model=model))
        await engine.close()
        return engine.model, engine.max_model_len, engine.adapters

    assert asyncio.run(go(None)) == ("base", 99, ("tuned",))
    assert asyncio.run(go("tuned"))[0] == "tuned"
    with pytest.raises(SwiftError, match="no model `other`") as caught:
        asyncio.run(go("other"))
    assert caught.value.next == "it lists base, tuned"


def test_an_adapter_is_a_model_name(wire: Wire) -> None:
    wire.reply = lambda body: (200, [_event(text=body["model"], finish_reason="stop"), DONE])
    assert _ask(RemoteSettings(url=wire.url), adapter="tuned")[0].text == "tuned"
    with pytest.raises(SwiftError, match="no adapter `nobody`"):
        _ask(RemoteSettings(url=wire.url), adapter="nobody")


def test_an_adapter_is_loaded_by_the_server(wire: Wire) -> None:
    async def go() -> tuple[str, ...]:
        engine = await RemoteEngine.start(RemoteSettings(url=wire.url))
        try:
            await engine.add_adapter("new", "there/new")
            return engine.adapters
        finally:
            await engine.close()

    wire.reply = lambda body: (200, [b"{}"])
    assert asyncio.run(go()) == ("tuned", "new")
    assert wire.asked == [("/v1/load_lora_adapter", {"lora_name": "new", "lora_path": "there/new"})]
    wire.reply = lambda body: (404, [b'{"detail": "Not Found"}'])
    with pytest.raises(SwiftError, match="refused to load the adapter `new`: Not Found"):
        asyncio.run(go())


def _chat(settings: RemoteSettings, conversation: Conversation, **sampling: Any) -> Message:
    async def go() -> Message:
        engine = await RemoteEngine.start(settings)
        try:
            return await engine.chat(conversation, SamplingParams(**{"max_tokens": 4, **sampling}))
        finally:
            await engine.close()

    return asyncio.run(go())


def test_a_conversation_can_be_left_to_the_server_to_render(wire: Wire) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "hm"}
    wire.reply = lambda body: (200, [json.dumps({"choices": [{"message": answer}]}).encode()])
    asked = Conversation(
        (
            Message("user", "q"),
            Message("assistant", "", tool_calls=(ToolCall("f", "{}", id="c0"),)),
            Message("tool", "1"),
        ),
        tools=({"name": "f", "parameters": {}},),
    )
    message = _chat(RemoteSettings(url=wire.url), asked)
    assert message == Message("assistant", "", tool_calls=(ToolCall("f", "{}", id="c1"),), reasoning="hm")
    path, body = wire.asked[0]
    assert path == "/v1/chat/completions"
    assert body["messages"][1]["tool_calls"][0]["id"] == "c0"
    assert body["messages"][2] == {"role": "tool", "content": "1", "tool_call_id": "c0"}
    assert body["tools"] == [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    wire.reply = lambda body: (200, [b'{"choices": []}'])
    with pytest.raises(SwiftError, match="no chat completion"):
        _chat(RemoteSettings(url=wire.url), asked)
    with pytest.raises(SwiftError, match="missing image"):
        _chat(RemoteSettings(url=wire.url), Conversation(asked.messages, media=Media(images=("a.png",))))


@pytest.fixture
def own(smollm2_tokenizer_dir: Path) -> Iterator[Callable[..., Running]]:
    """Starts this project's own server over an engine that repeats the prompt."""
    tokenizer = AutoTokenizer.from_pretrained(smollm2_tokenizer_dir)
    encoder = build_encoder(PromptPlan(template_type="qwen", system=""), tokenizer, load_catalog())
    with servers(tokenizer, encoder) as go:
        yield lambda **plan: go(ScriptedEngine(tokenizer, pause=plan.pop("pause", 0.0), adapters=("tuned",)), **plan)


def test_our_own_server_is_an_engine(own: Callable[..., Running]) -> None:
    running = own(api_key="secret")
    text = "a café in Tōkyō, 中文"
    ids = tuple(running.engine.tokenizer.encode(text))

    async def go() -> tuple[list[Delta], int]:
        engine = await RemoteEngine.start(RemoteSettings(url=running.url, api_key="secret"))
        request = Request(
            id="r", prompt_ids=ids, sampling=SamplingParams(max_tokens=64, n=2, logprobs=1), adapter="tuned"
        )
        deltas = [delta async for delta in engine.stream(request)]
        await engine.close()
        return deltas, engine.max_model_len

    deltas, _ = asyncio.run(go())
    asked = running.engine.requests[-1]
    assert (asked.prompt_ids, asked.adapter, asked.sampling.n) == (ids, "tuned", 2)
    assert {delta.finish_reason for delta in deltas} == {None, "stop"}
    assert [logprob.logprob for logprob in deltas[0].logprobs] == [-0.5]
    with pytest.raises(SwiftError, match="does not take the key"):
        asyncio.run(RemoteEngine.start(RemoteSettings(url=running.url, api_key="wrong")))


def test_leaving_frees_the_place_on_our_own_server(own: Callable[..., Running]) -> None:
    running = own(pause=0.05)

    async def go() -> None:
        engine = await RemoteEngine.start(RemoteSettings(url=running.url))
        ids = tuple(running.engine.tokenizer.encode("one two three four five six seven eight nine ten " * 8))
        stream = engine.stream(Request(id="r", prompt_ids=ids, sampling=SamplingParams(max_tokens=300)))
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        deadline = time.monotonic() + 10
        while running.engine.running and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        await engine.close()

    asyncio.run(go())
    assert running.engine.running == 0


def test_the_first_tokens_of_an_answer(wire: Wire) -> None:
    async def first() -> dict[str, float]:
        engine = await RemoteEngine.start(RemoteSettings(url=wire.url))
        try:
            return await engine.first_tokens(Conversation((Message("user", "A or B?"),)), 2)
        finally:
            await engine.close()

    top = [{"token": "A", "logprob": -0.5, "bytes": [65]}, {"token": " B", "logprob": -1.5, "bytes": None}]
    told = {"token": "A", "logprob": -0.5, "top_logprobs": top}
    answer = {"choices": [{"message": {"content": "A"}, "logprobs": {"content": [told]}}]}
    wire.reply = lambda body: (200, [json.dumps(answer).encode()])
    assert asyncio.run(first()) == {"A": -0.5, " B": -1.5}
    (path, body) = wire.asked[-1]
    assert path == "/v1/chat/completions" and body["messages"] == [{"role": "user", "content": "A or B?"}]
    assert (body["max_tokens"], body["temperature"], body["logprobs"], body["top_logprobs"]) == (1, 0, True, 2)
    for silent in (
        {"choices": [{"message": {"content": "A"}}]},
        {"choices": [{"logprobs": None}]},
        {"choices": []},
        [],
    ):
        wire.reply = lambda body, silent=silent: (200, [json.dumps(silent).encode()])
        with pytest.raises(SwiftError, match="tells no log-probabilities"):
            asyncio.run(first())


def test_plain_text_is_completed(wire: Wire) -> None:
    async def completed() -> str:
        engine = await RemoteEngine.start(RemoteSettings(url=wire.url))
        try:
            return await engine.complete("2 + 2 =", SamplingParams(max_tokens=3))
        finally:
            await engine.close()

    wire.reply = lambda body: (200, [b'{"choices": [{"text": " 4"}]}'])
    assert asyncio.run(completed()) == " 4"
    assert wire.asked[-1][0] == "/v1/completions" and wire.asked[-1][1]["prompt"] == "2 + 2 ="
    wire.reply = lambda body: (200, [b"{}"])
    with pytest.raises(SwiftError, match="no completion"):
        asyncio.run(completed())
