"""Many clients, lost clients, a full queue, and the end of the server."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time

import httpx
import pytest

from swift.core.errors import Interrupted
from swift.plan.serve import Defaults, ServePlan
from swift.serving.server import Server, bind
from swift.serving.service import Loaded, Service

from .conftest import Running
from .scripted import ScriptedEngine


def body(text: str, **fields: object) -> dict:
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], **fields}


def settled(running: Running) -> bool:
    """Whether every place comes free within two seconds."""
    for _ in range(100):
        if running.engine.running == 0 and running.service.gate.answers == 0 and running.service.gate.requests == 0:
            return True
        time.sleep(0.02)
    return False


def test_full_queue_says_when_to_come_back(start, tokenizer) -> None:
    running = start(max_in_flight=2)
    running.engine.go_on.clear()

    async def fire() -> list[httpx.Response]:
        async with httpx.AsyncClient() as client:
            url = f"{running.url}/v1/chat/completions"
            asked = [asyncio.create_task(client.post(url, json=body("a b"))) for _ in range(5)]
            while sum(task.done() for task in asked) < 3:
                await asyncio.sleep(0.01)
            running.engine.go_on.set()
            return await asyncio.gather(*asked)

    answers = asyncio.run(fire())
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "queue_full"
    assert httpx.post(f"{running.url}/v1/chat/completions", json=body("hi", n=3)).status_code == 400
    assert settled(running)


def test_a_client_that_goes_away_frees_its_place(start, tokenizer) -> None:
    running = start(ScriptedEngine(tokenizer, pause=0.05))
    url = f"{running.url}/v1/chat/completions"
    long = "word " * 100
    with httpx.stream("POST", url, json=body(long, stream=True)) as response:
        lines = response.iter_lines()
        next(lines)
        assert running.engine.running == 1
    assert settled(running)
    with pytest.raises(httpx.TimeoutException):
        httpx.post(url, json=body(long), timeout=0.3)
    assert settled(running)
    completion = {"model": "tiny", "prompt": [long, long, long], "n": 2}
    with pytest.raises(httpx.TimeoutException):
        httpx.post(f"{running.url}/v1/completions", json=completion, timeout=0.3)
    assert settled(running)


def test_every_client_gets_its_own_answer(start, tokenizer) -> None:
    running = start(ScriptedEngine(tokenizer, pause=0.001))
    url = f"{running.url}/v1/chat/completions"

    async def good(client: httpx.AsyncClient, at: int) -> bool:
        text = f"request number {at} of all"
        answer = await client.post(url, json=body(text, stream=at % 2 == 0))
        if at % 2:
            return answer.json()["choices"][0]["message"]["content"] == text
        events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line][:-1]
        deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
        return "".join(delta.get("content", "") for delta in deltas) == text

    async def lost(client: httpx.AsyncClient, at: int) -> bool:
        try:
            await client.post(url, json=body("word " * 200, stream=True), timeout=0.02 + at % 7 / 100)
        except httpx.HTTPError:
            return True
        return True

    async def bad(client: httpx.AsyncClient, at: int) -> bool:
        return (await client.post(url, content=b"{" * (at + 1))).status_code in (400, 422)

    async def run() -> list[bool]:
        limits = httpx.Limits(max_connections=32)
        async with httpx.AsyncClient(limits=limits, timeout=60) as client:
            kinds = (good, good, good, lost, bad)
            return await asyncio.gather(*(kinds[at % 5](client, at) for at in range(100)))

    assert all(asyncio.run(run()))
    assert settled(running)


def test_stop_finishes_what_was_accepted_and_refuses_the_rest(start, tokenizer) -> None:
    running = start()
    running.engine.go_on.clear()
    url = f"{running.url}/v1/chat/completions"
    text = "a b c d"
    answers: list[httpx.Response] = []
    clients = [
        threading.Thread(target=lambda s=s: answers.append(httpx.post(url, json=body(text, stream=s), timeout=20)))
        for s in (False, True, False, True)
    ]
    for client in clients:
        client.start()
    while running.engine.running < 4:
        time.sleep(0.01)
    running.server.stop()
    while running.service.status != "draining":
        time.sleep(0.01)
    late = httpx.post(url, json=body("hi"))
    assert late.status_code == 503 and late.headers["retry-after"]
    assert httpx.get(f"{running.url}/health").status_code == 503
    running.engine.go_on.set()
    for client in clients:
        client.join(20)
    assert [answer.status_code for answer in answers] == [200] * 4
    assert all(text in answer.text or '" d"' in answer.text for answer in answers)
    for _ in range(200):
        if running.engine.closed:
            break
        time.sleep(0.02)
    assert running.engine.closed


def test_a_second_signal_ends_every_answer_with_its_reason(tokenizer, encoder, capfd) -> None:
    engine, ready, ended = ScriptedEngine(tokenizer), threading.Event(), []
    engine.go_on.clear()
    service = Service(ServePlan(model_name="tiny"))
    listener = bind("127.0.0.1", 0)
    server = Server(service, listener, lambda loop: Loaded(engine, encoder, Defaults()), ready.set)

    def serve() -> None:
        with pytest.raises(Interrupted) as cut_short:
            server.answer()
        ended.append(cut_short.value.exit_code)

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(20)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/chat/completions"
    answers: list[httpx.Response] = []
    clients = [
        threading.Thread(target=lambda s=s: answers.append(httpx.post(url, json=body("a b", stream=s), timeout=20)))
        for s in (False, True)
    ]
    for client in clients:
        client.start()
    while engine.running < 2:
        time.sleep(0.01)
    server.handle_exit(signal.SIGTERM, None)
    while service.status != "draining":
        time.sleep(0.01)
    server.handle_exit(signal.SIGTERM, None)
    for each in (*clients, thread):
        each.join(20)
    assert ended == [130]
    assert [answer.status_code for answer in answers] == [503, 503]
    assert {answer.json()["error"]["code"] for answer in answers} == {"aborted"}
    assert engine.closed and "Traceback" not in capfd.readouterr().err


def test_before_the_model_is_there(start, tokenizer, encoder) -> None:
    """/health says 503 while the model is loaded, and so does every answer; then both work."""
    service = Service(ServePlan(model_name="tiny"))
    listener = bind("127.0.0.1", 0)
    go, ready = threading.Event(), threading.Event()

    def load(loop: asyncio.AbstractEventLoop) -> Loaded:
        go.wait(20)
        return Loaded(ScriptedEngine(tokenizer), encoder, Defaults())

    server = Server(service, listener, load, ready.set)
    thread = threading.Thread(target=server.answer)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert httpx.get(f"{url}/health").status_code == 503
    refused = httpx.post(f"{url}/v1/chat/completions", json=body("hi"))
    assert refused.status_code == 503 and refused.json()["error"]["code"] == "loading"
    assert httpx.get(f"{url}/v1/models").status_code == 503
    go.set()
    assert ready.wait(20)
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    assert httpx.post(f"{url}/v1/chat/completions", json=body("hi")).status_code == 200
    server.stop()
    thread.join(20)
