"""Media of requests at addresses that take their time: one client's must cost no other client anything."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image
from tests.data.test_image_fetch import HEAD, answering
from tests.fixtures.shown import Pictures

from swift.plan.serve import MediaPolicy
from swift.prompts.encode import Encoder

from .conftest import Running, servers

SLOW = 24
"""Requests at slow addresses: more than any pool of threads a small machine has by default."""


def chat(link: str) -> dict:
    content = [{"type": "image_url", "image_url": {"url": link}}, {"type": "text", "text": "what is it"}]
    return {"model": "tiny", "messages": [{"role": "user", "content": content}], "max_tokens": 2}


def data_url() -> str:
    body = io.BytesIO()
    Image.new("RGB", (4, 4)).save(body, "PNG")
    return "data:image/png;base64," + base64.b64encode(body.getvalue()).decode()


@pytest.fixture
def seeing(tokenizer, encoder: Encoder) -> Iterator[Running]:
    """A server whose model is said to take images, from addresses of this machine too."""
    token = tokenizer.convert_tokens_to_ids("<|im_start|>")
    sees = Encoder(encoder.plan, encoder.template, encoder.tokens, Pictures("<|im_start|>", "<|im_start|>", token))
    with servers(tokenizer, sees) as go:
        yield go(media=MediaPolicy(private_urls=True), max_in_flight=SLOW)


def test_slow_addresses_hold_up_no_other_request_and_are_left_when_their_clients_go(seeing: Running) -> None:
    url = f"{seeing.url}/v1/chat/completions"

    async def ask() -> None:
        async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=None)) as client:
            slow = [asyncio.create_task(client.post(url, json=chat(dripping))) for _ in range(SLOW)]
            while seeing.service.gate.fetches < SLOW:
                await asyncio.sleep(0.01)
            start = time.monotonic()
            answer = await client.post(url, json=chat(data_url()))
            assert answer.status_code == 200, answer.text
            assert time.monotonic() - start < 3
            refused = await client.post(url, json=chat(dripping))
            assert refused.status_code == 429 and "wait for media at addresses" in refused.text
            for task in slow:
                task.cancel()
            while seeing.service.gate.fetches:
                await asyncio.sleep(0.01)
            assert time.monotonic() - start < 8  # before the time that one address is given is over

    with answering(HEAD, *[b"x"] * 40, pause=0.5) as dripping:
        asyncio.run(asyncio.wait_for(ask(), 60))
