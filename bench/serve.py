"""python bench/serve.py [MODEL_DIR] [--requests N] [--clients N]

`swift deploy` under load: clients ask, hang up and send nonsense at random. Every good request must get its own answer
(it is held to a schema that only its own id fits, or compared with what the server said to it alone), every bad one
its status; memory must stay flat and no place may stay taken; at the end SIGTERM comes in the middle of answers, which
must all be finished. Without MODEL_DIR a tiny random Llama is made. Exit code 1 when anything of this does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil

TOKENIZER = Path(__file__).parents[1] / "tests" / "fixtures" / "tokenizers" / "smollm2" / "tokenizer.json.gz"
PROMPTS = [
    f"Say something about {thing}." for thing in ("ships", "rivers", "salt", "the moon", "chess", "bread", "ice")
]
BAD = (b"", b"{", b"\xff\xfe", b"[]", b'{"model": "tiny"}', b'{"model": "nope", "messages": [{"role": "user"}]}')


def main() -> int:
    """Run the load and print what was seen. -> exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=64)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = said.model or tiny_model(Path(scratch))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        program = [sys.executable, "-c", "from swift.cli import script; script()", "deploy"]
        flags = f"--model_id_or_path {model} --served_model_name tiny --host 127.0.0.1 --port {port} --verbose false"
        server = subprocess.Popen([*program, *flags.split(), "--log_interval", "0"], stdout=subprocess.DEVNULL)
        try:
            return asyncio.run(Load(f"http://127.0.0.1:{port}", server, said.clients).run(said.requests))
        finally:
            server.kill()
            server.wait()


class Load:
    """The clients of one run, and what they saw."""

    def __init__(self, url: str, server: subprocess.Popen[bytes], clients: int):
        self._url = url
        self._server = server
        self._clients = asyncio.Semaphore(clients)
        self._http = httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=None))
        self._memory = psutil.Process(server.pid).memory_info
        self._alone: dict[str, str] = {}
        self._seen: Counter[str] = Counter()
        self._seconds: list[float] = []

    async def run(self, requests: int) -> int:
        """Warm up, load, look for what was left behind, stop. -> exit code."""
        while not await self._healthy():
            await asyncio.sleep(0.2)
        for prompt in PROMPTS:
            self._alone[prompt] = await self._text(prompt, stream=False)
        memory = []
        for _ in range(5):
            await self._all(requests // 5)
            memory.append(self._memory().rss / 2**20)
        left = await self._left_behind()
        # The caches of the engine fill in the first fifths; what still grows after them is a leak.
        grown = memory[-1] - memory[-3]
        finished, code = await self._stop_under_load()
        print(json.dumps(dict(sorted(self._seen.items()))))
        ordered = sorted(self._seconds)
        print(
            f"seconds an answer: median {statistics.median(ordered):.2f}, p95 {ordered[len(ordered) * 95 // 100]:.2f}"
        )
        print(
            f"memory after each fifth: {', '.join(f'{size:.0f}' for size in memory)} MiB; places still taken: {left:g}"
        )
        print(f"SIGTERM: {finished} of 16 accepted answers finished, exit code {code}")
        wrong = [name for name in self._seen if name.startswith("WRONG")]
        return int(bool(wrong or left or grown > 0.05 * memory[-1] or finished < 16 or code))

    async def _all(self, count: int) -> None:
        draw = random.Random(count)
        kinds = [self._own_id] * 4 + [self._same_as_alone] * 3 + [self._hang_up] * 2 + [self._nonsense]
        await asyncio.gather(*(self._one(draw.choice(kinds), at, draw.random()) for at in range(count)))

    async def _one(self, kind, at: int, chance: float) -> None:  # type: ignore[no-untyped-def]
        async with self._clients:
            start = time.perf_counter()
            try:
                good = await kind(at, chance)
            except (httpx.HTTPError, KeyError, ValueError) as error:
                good = False
                print(f"{kind.__name__} {at}: {error!r}", file=sys.stderr)
            self._seen[kind.__name__ if good else f"WRONG {kind.__name__}"] += 1
            if kind in (self._own_id, self._same_as_alone):
                self._seconds.append(time.perf_counter() - start)

    async def _own_id(self, at: int, chance: float) -> bool:
        schema = {"type": "object", "properties": {"id": {"const": f"request-{at}"}}, "required": ["id"]}
        form = {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {**schema, "additionalProperties": False}},
        }
        text = await self._text(f"Your id is {at}", stream=chance < 0.5, response_format=form, max_tokens=100)
        return json.loads(text) == {"id": f"request-{at}"}

    async def _same_as_alone(self, at: int, chance: float) -> bool:
        prompt = PROMPTS[at % len(PROMPTS)]
        return await self._text(prompt, stream=chance < 0.5) == self._alone[prompt]

    async def _hang_up(self, at: int, chance: float) -> bool:
        body = self._body(PROMPTS[at % len(PROMPTS)], max_tokens=400, stream=chance < 0.5)
        try:
            async with asyncio.timeout(chance):
                await self._http.post(f"{self._url}/v1/chat/completions", json=body)
        except TimeoutError:
            pass
        return True

    async def _nonsense(self, at: int, chance: float) -> bool:
        headers = {"Content-Type": "application/json"}
        content = BAD[at % len(BAD)]
        answer = await self._http.post(f"{self._url}/v1/chat/completions", content=content, headers=headers)
        return answer.status_code in (400, 404, 422) and bool(answer.json()["error"]["message"])

    async def _text(self, prompt: str, *, stream: bool, **fields: object) -> str:
        body = self._body(prompt, stream=stream, **{"max_tokens": 32, **fields})
        answer = await self._http.post(f"{self._url}/v1/chat/completions", json=body)
        answer.raise_for_status()
        if not stream:
            return answer.json()["choices"][0]["message"]["content"]
        events = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]
        return "".join(event["choices"][0]["delta"].get("content", "") for event in events)

    def _body(self, prompt: str, **fields: object) -> dict[str, object]:
        return {"model": "tiny", "messages": [{"role": "user", "content": prompt}], "temperature": 0, **fields}

    async def _healthy(self) -> bool:
        try:
            return (await self._http.get(f"{self._url}/health")).status_code == 200
        except httpx.TransportError:
            return False

    async def _taken(self, *names: str) -> float:
        text = (await self._http.get(f"{self._url}/metrics")).text
        found = (re.search(rf"^swift_{name} (\S+)", text, re.M) for name in names)
        return sum(float(match.group(1)) for match in found if match)

    async def _left_behind(self) -> float:
        for _ in range(50):
            if (taken := await self._taken("in_flight", "running", "waiting")) == 0:
                return 0
            await asyncio.sleep(0.1)
        return taken

    async def _stop_under_load(self) -> tuple[int, int]:
        asked = [asyncio.create_task(self._text(PROMPTS[0], stream=at % 2 == 0, max_tokens=200)) for at in range(16)]
        while await self._taken("in_flight") < 16:
            await asyncio.sleep(0.02)
        self._server.terminate()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        code = await asyncio.to_thread(self._server.wait, 60)
        await self._http.aclose()
        return sum(isinstance(answer, str) and bool(answer) for answer in answers), code


def tiny_model(folder: Path) -> Path:
    """A random 2-layer Llama with the tokenizer of SmolLM2."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(gzip.decompress(TOKENIZER.read_bytes()))
    chatml = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "chat_template": chatml}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
