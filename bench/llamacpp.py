"""python bench/llamacpp.py [MODEL_DIR] [--rounds N] [--tokens 128] [--bits 0|8|4]

`--infer_backend llamacpp` against the wheel's own call (`xllamacpp.Server.handle_completions`) on the same GGUF file
with as many threads, one answer and eight at once, in turns: SmolLM2, greedy, prompts of 64 tokens. Then ten prompts
with 200 greedy tokens each, read by the PyTorch engine in fp32: the share of tokens that it would have chosen in their
place. Prints the medians of the ratios, and the share. Exit code 1 when a bar is missed: 0.95 of the wheel's own speed;
every token of f16, and 0.98 of q8_0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xllamacpp

from infer import _packaged
from swift.catalog import load_catalog
from swift.core.probe import probe
from swift.engines.base import Engine, Request, SamplingParams
from swift.engines.factory import prepare, start
from swift.engines.gguf_cache import cached_gguf
from swift.engines.gguf_check import TEXTS
from swift.params.parse import parse
from swift.plan.infer import plan_infer

LEAST = 0.95
AGREES = {0: 1.0, 8: 0.98, 4: 0.85}
"""Share of greedy tokens that are the PyTorch engine's, by bits."""
PROMPT, MANY = 64, 8
GREEDY = 200


def main() -> int:
    """Measure and print. -> exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--bits", type=int, choices=AGREES, default=0)
    given = parser.parse_args()
    return asyncio.run(_measure(given.model or _packaged(), given.rounds, given.tokens, given.bits))


async def _measure(folder: Path, rounds: int, tokens: int, bits: int) -> int:
    words = ["infer", "--model_id_or_path", str(folder), "--template_type", "chatml", "--max_model_len", "512"]
    catalog, machine = load_catalog(), probe()
    plan = plan_infer(parse([*words, "--infer_backend", "llamacpp", "--quantization_bit", str(bits)]), catalog, machine)
    prepared = prepare(plan, catalog)
    tokenizer = prepared.tokenizer
    text = tokenizer(Path(__file__).read_text("utf-8") * 3)["input_ids"]
    file = cached_gguf(plan.model, prepared.source, prepared.encoder, plan.engine.gguf_type or "f16", None, None)
    engine = await start(plan, prepared)
    wheel = _wheel(file)
    missed = False
    for count in (1, MANY):
        ratios = []
        for number in range(rounds + 1):
            prompts = [text[(number * MANY + at) * 29 :][:PROMPT] for at in range(count)]
            theirs = await asyncio.to_thread(_by_wheel, wheel, prompts, tokens)
            began = time.perf_counter()
            await _by_engine(engine, prompts, tokens, stops=False)
            ours = count * tokens / (time.perf_counter() - began)
            if number:  # the first round is to get warm
                ratios.append(ours / theirs)
                print(f"{count} at once: engine {ours:.1f}, wheel {theirs:.1f} tokens/s", flush=True)
        median = statistics.median(ratios)
        print(f"{count} at once: {median:.3f} of the wheel's own speed (bar: at least {LEAST})")
        missed |= median < LEAST
    described = json.loads(TEXTS.read_text("utf-8"))
    asked = [tokenizer(text)["input_ids"] for text in [*described["prompts"], *described["questions"]]][:10]
    answers = await _by_engine(engine, asked, GREEDY)
    await engine.close()
    named = parse([*words, "--infer_backend", "pt", "--dtype", "fp32"])
    torch = await start(plan_infer(named, catalog, machine), prepared)
    same = total = 0
    for ids, answer in zip(asked, answers, strict=True):
        (read,) = await torch.log_probs(tuple(ids), [tuple(answer)], top=1)
        same += sum(token.top[0][1] == token.token_id for token in read)
        total += len(answer)
    expected = await _by_engine(torch, asked, GREEDY)
    await torch.close()
    equal = sum(ours == theirs for ours, theirs in zip(answers, expected, strict=True))
    print(
        f"greedy: {same} of {total} tokens are PyTorch's choice (bar: {AGREES[bits]:.0%}), {equal} of 10 answers equal"
    )
    return int(missed or same / total < AGREES[bits])


def _wheel(file: Path) -> Any:
    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_ctx, settings.n_parallel = 513 * MANY, MANY
    threads = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.verbosity = 1
    return xllamacpp.Server(settings)


def _by_wheel(server: Any, prompts: Sequence[list[int]], tokens: int) -> float:
    """-> tokens/s."""

    def answer(ids: list[int]) -> int:
        body = {"prompt": ids, "n_predict": tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        return server.handle_completions(body)["usage"]["completion_tokens"]

    began = time.perf_counter()
    with ThreadPoolExecutor(len(prompts)) as pool:
        count = sum(pool.map(answer, prompts))
    return count / (time.perf_counter() - began)


async def _by_engine(
    engine: Engine, prompts: Sequence[list[int]], tokens: int, *, stops: bool = True
) -> list[list[int]]:
    sampling = SamplingParams(max_tokens=tokens, ignore_eos=not stops, min_tokens=0 if stops else tokens)

    async def answer(number: int, ids: list[int]) -> list[int]:
        request = Request(id=str(number), prompt_ids=tuple(ids), sampling=sampling)
        return [token async for delta in engine.stream(request) for token in delta.token_ids]

    return await asyncio.gather(*(answer(number, ids) for number, ids in enumerate(prompts)))


if __name__ == "__main__":
    sys.exit(main())
