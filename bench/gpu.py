"""python bench/gpu.py [MODEL_DIR] [--rows 2000] [--steps 30]

Training and answers on a GPU, in tokens/s and as shares of what the GPU reaches in the same run: matrix products of
8,192 x 8,192 in bf16 for training, copies of memory for one answer. Training is `swift sft` with bf16, LoRA and full,
batches of 16 rows; answers are 1 and 64 at once, greedy, 64-token prompts, 128 new tokens. SmolLM2 without MODEL_DIR.
Says so and ends where there is no GPU.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from infer import _answer, _packaged
from loops.watch import watch
from swift.engines.torch import TorchEngine
from train import _rows

BATCH, ANSWERS, PROMPT, NEW = 16, 64, 64, 128


def main() -> int:
    """Measure and print. -> exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=30)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no GPU here: nothing was measured")
        return 0
    folder = given.model or _packaged()
    products, copies = products_per_second(), bytes_per_second()
    print(f"{torch.cuda.get_device_name()}: {products / 1e12:.0f} TFLOP/s in bf16, {copies / 1e9:.0f} GB/s")
    weights = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(folder, device_map="meta").parameters())
    with tempfile.TemporaryDirectory() as work:
        for kind, per_weight in (("lora", 4), ("full", 6)):  # without the products for frozen weights' gradients
            speed = training_speed(Path(work), folder, kind, given.rows, given.steps)
            share = speed * per_weight * weights / products
            print(f"sft, {kind}: {speed:,.0f} tokens/s, {share:.1%} of the matrix products", flush=True)
    one, many = asyncio.run(answer_speeds(folder))
    print(f"one answer: {one:,.0f} tokens/s, {one * 2 * weights / copies:.1%} of reading the weights")
    print(f"{ANSWERS} at once: {many:,.0f} tokens/s")
    return 0


def per_second(work: Callable[[], object], times: int) -> float:
    """How often a second the GPU does it."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        work()
    torch.cuda.synchronize()
    return times / (time.perf_counter() - start)


def products_per_second() -> float:
    """Floating point operations of large products of bf16 matrices."""
    size = 8192
    one, other = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return per_second(lambda: one @ other, 20) * 2 * size**3


def bytes_per_second() -> float:
    """Read, and as many written."""
    source = torch.zeros(2**30, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    return per_second(lambda: target.copy_(source), 20) * 2 * source.numel()


def training_speed(work: Path, model: Path, kind: str, rows: int, steps: int) -> float:
    """Tokens a second of the median step of `swift sft`, its first steps left out."""
    data, output = work / "rows.jsonl", work / kind
    output.mkdir()
    data.write_text("".join(json.dumps(row) + "\n" for row in _rows(None)[:rows]))
    flags = {
        "model_id_or_path": model,
        "dataset": data,
        "output_dir": output,
        "add_output_dir_suffix": "false",
        "sft_type": kind,
        "dtype": "bf16",
        "batch_size": BATCH,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": "false",
        "max_steps": steps,
        "logging_steps": 5,
        "evaluation_strategy": "no",
        "dataset_test_ratio": 0,
    }
    command = [sys.executable, "-m", "swift", "sft", *(w for name, v in flags.items() for w in (f"--{name}", str(v)))]
    events, _, _ = watch(command, output, output / "logging.jsonl")
    return statistics.median([event["tokens/s"] for event in events if "tokens/s" in event][2:])


async def answer_speeds(folder: Path) -> tuple[float, float]:
    """New tokens a second of one answer, and of many at once."""
    load = partial(AutoModelForCausalLM.from_pretrained, folder, dtype=torch.bfloat16, device_map="cuda")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer(Path(__file__).read_text("utf-8") * 4)["input_ids"]
    prompts = [text[at * 29 : at * 29 + PROMPT] for at in range(ANSWERS)]
    engine = TorchEngine(load, tokenizer, guess=False)
    await _answer(engine, prompts[:2], 4)
    speeds = []
    for chosen in (prompts[:1], prompts):
        start = time.perf_counter()
        await _answer(engine, [[token + 1 for token in prompt] for prompt in chosen], NEW)
        speeds.append(len(chosen) * NEW / (time.perf_counter() - start))
    await engine.close()
    return speeds[0], speeds[1]


if __name__ == "__main__":
    sys.exit(main())
