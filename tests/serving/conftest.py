"""A server over the scripted engine, on a free port of this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from transformers import AutoTokenizer

from swift.catalog import load_catalog
from swift.plan.prompt import PromptPlan
from swift.plan.serve import Defaults, ServePlan
from swift.prompts.encode import Encoder, build_encoder
from swift.serving.server import Server, bind
from swift.serving.service import Loaded, Service

from .scripted import ScriptedEngine


@dataclass
class Running:
    """A server that answers, its address, and its parts to look into."""

    url: str
    service: Service
    engine: ScriptedEngine
    server: Server


@pytest.fixture(scope="session")
def tokenizer(smollm2_tokenizer_dir: Path):
    return AutoTokenizer.from_pretrained(smollm2_tokenizer_dir)


@pytest.fixture(scope="session")
def encoder(tokenizer) -> Encoder:
    return build_encoder(PromptPlan(template_type="qwen", system=""), tokenizer, load_catalog())


@contextmanager
def servers(tokenizer, encoder) -> Iterator[Callable[..., Running]]:
    """A function that starts servers; all are stopped at the end."""
    started: list[tuple[Server, threading.Thread]] = []

    def go(engine: ScriptedEngine | None = None, heads: frozenset[str | None] = frozenset(), **plan: object) -> Running:
        engine = engine or ScriptedEngine(tokenizer)
        service = Service(ServePlan(**{"model_name": "tiny", **plan}))
        listener = bind("127.0.0.1", 0)
        ready = threading.Event()
        server = Server(service, listener, lambda loop: Loaded(engine, encoder, Defaults(), heads), ready.set)
        thread = threading.Thread(target=server.answer, daemon=True)
        thread.start()
        started.append((server, thread))
        assert ready.wait(20)
        return Running(f"http://127.0.0.1:{listener.getsockname()[1]}", service, engine, server)

    yield go
    for server, _ in started:
        server.stop()
    for _, thread in started:
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def start(tokenizer, encoder) -> Iterator[Callable[..., Running]]:
    """Start servers with an engine and a plan of one's own; all are stopped at the end of the test."""
    with servers(tokenizer, encoder) as go:
        yield go


@pytest.fixture(scope="module")
def module_server(tokenizer, encoder) -> Iterator[Running]:
    """One server for all tests of a file."""
    with servers(tokenizer, encoder) as go:
        yield go()


@pytest.fixture
def running(start) -> Running:
    return start()


@pytest.fixture
def ask(running: Running) -> Callable[..., httpx.Response]:
    """POST /v1/chat/completions with one user message; keyword arguments go into the body."""

    def post(text: str = "hello there", **fields: object) -> httpx.Response:
        body = {"model": "tiny", "messages": [{"role": "user", "content": text}], **fields}
        return httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=20)

    return post
