"""python bench/lookup.py [MODEL_DIR] [--rounds N] [--dtype bf16]

Answers with and without guesses from their prompts (prompt lookup), one at a time, greedy, on a CPU: summaries of
paragraphs, changes to code, and questions that have nothing to quote. Each side has a process of its own, and they take
turns. Prints the ratios of CPU time, how many guesses were right, and whether every token is equal. Exit code 1 when
one is not, or a bar is missed: code 1.2 times as fast, summaries 1.05, and questions 0.97.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from infer import _packaged
from swift.engines.base import Request, SamplingParams
from swift.engines.torch import TorchEngine

BARS = {"code": 1.2, "summary": 1.05, "question": 0.97}
NEW = 160
HERE = Path(__file__).parent


def rows() -> dict[str, list[str]]:
    """Of each kind, the messages of users."""
    source = (HERE / "kill.py").read_text("utf-8").split("\n\n\n")
    functions = [piece for piece in source if piece.startswith("def ")][:3]
    readme = (HERE.parent / "docs" / "decisions" / "threads.md").read_text("utf-8").split("\n\n")
    paragraphs = sorted((piece for piece in readme if "|" not in piece), key=len)[-3:]
    return {
        "code": [f"Rename the function to `work` and give back the whole code.\n\n{code}" for code in functions],
        "summary": [f"Summarize this text in three sentences.\n\n{text}" for text in paragraphs],
        "question": [
            "Why is the sky blue?",
            "Write a short story about a ship.",
            "What should I cook on a cold evening?",
        ],
    }


def main() -> int:
    """Measure and print. -> exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="bf16")
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    pools = {guess: ProcessPoolExecutor(1, context) for guess in (True, False)}
    for guess, pool in pools.items():
        pool.submit(_start, given.model or _packaged(), guess, given.dtype).result()
    missed = False
    for kind, messages in rows().items():
        ratios, equal, guessed, right = [], 0, 0, 0
        for _ in range(given.rounds):
            answers = {guess: pool.submit(_answers, messages).result() for guess, pool in pools.items()}
            (seconds, tokens, (guessed, right)), (slow, plain, _) = answers[True], answers[False]
            ratios.append(slow / seconds)
            equal = sum(one == other for one, other in zip(tokens, plain, strict=True))
        median = statistics.median(ratios)
        print(
            f"{kind:8} {median:.2f} times as fast ({', '.join(f'{r:.2f}' for r in ratios)}; bar: {BARS[kind]}), "
            f"{right} of {guessed} guesses right, {equal} of {len(messages)} answers equal",
            flush=True,
        )
        missed |= median < BARS[kind] or equal < len(messages)
    return int(missed)


_engine: list[TorchEngine] = []
_loop = asyncio.new_event_loop()


def _start(folder: Path, guess: bool, dtype: str) -> None:
    """In the engine's process."""
    kind = torch.float32 if dtype == "fp32" else torch.bfloat16
    load = partial(AutoModelForCausalLM.from_pretrained, folder, dtype=kind)
    _engine.append(TorchEngine(load, AutoTokenizer.from_pretrained(folder), guess=guess))
    _answers(["Hello"])


def _answers(messages: list[str]) -> tuple[float, list[list[int]], tuple[int, int]]:
    """CPU seconds, the tokens of each answer, and the guesses so far with those that were right."""
    (engine,) = _engine
    counts = engine.guesses.guessed, engine.guesses.right
    start = time.process_time()
    tokens = [_loop.run_until_complete(_answer(engine, message)) for message in messages]
    seconds = time.process_time() - start
    return seconds, tokens, (engine.guesses.guessed - counts[0], engine.guesses.right - counts[1])


async def _answer(engine: TorchEngine, message: str) -> list[int]:
    prompt = engine.tokenizer.apply_chat_template([{"role": "user", "content": message}], add_generation_prompt=True)
    ids = prompt if isinstance(prompt, list) else prompt["input_ids"]
    request = Request(id="one", prompt_ids=tuple(ids), sampling=SamplingParams(max_tokens=NEW))
    return [token async for delta in engine.stream(request) for token in delta.token_ids]


if __name__ == "__main__":
    sys.exit(main())
