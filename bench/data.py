"""python bench/data.py [--rows FILE] [--cpu_time]

The data layer on one machine in one run: encoding against raw `tokenizers.encode_batch` with one worker and with two,
a million rows as a stream (memory, first batch), a second start from the token cache, and a resume at row 500,000.
Without --rows the instruction rows are made up of words of the tokenizer, of the lengths that such rows usually have.
Exit code 1 when a bar is missed. With --cpu_time encoding is measured by the processor time of all its processes, for
machines that others use too.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TOKENIZER = Path(__file__).parents[1] / "tests" / "fixtures" / "tokenizers" / "smollm2" / "tokenizer.json.gz"
ROUNDS = 3
ROWS = 6000
STREAMED = 1_000_000
RESUMED_AT = 500_000
COMMIT = 512
"""Rows of a raw `encode_batch` call; the data layer works in chunks of the same size."""


def main() -> int:
    """Run all measurements, or the one that a child process is started for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--cpu_time", action="store_true")
    parser.add_argument("--part", nargs="+")
    said = parser.parse_args()
    if said.part:
        print(json.dumps(PARTS[said.part[0]](*said.part[1:])))
        return 0
    os.environ["BENCH_CLOCK"] = "cpu" if said.cpu_time else "wall"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tokenizer.json").write_bytes(gzip.decompress(TOKENIZER.read_bytes()))
        rows = said.rows or write_rows(folder / "rows.jsonl", ROWS)
        million = write_rows(folder / "million.jsonl", STREAMED, most=60)
        return 0 if all(list(measure(folder, rows, million))) else 1


def measure(folder: Path, rows: Path, million: Path) -> Iterator[bool]:
    """One line a bar; -> whether each is met."""
    for workers in (1, 2):
        ratios, rates = [], []
        for _ in range(ROUNDS):
            raw = child("raw", folder, rows, threads=workers)
            ours = child("encode", folder, rows, workers, threads=1)
            rates.append((raw, ours))
            ratios.append(ours / raw)
        raw, ours = (statistics.median(side) for side in zip(*rates, strict=True))
        text = f"encoding, {workers} worker(s): {ours:.0f} rows/s, raw encode_batch {raw:.0f} rows/s"
        yield line(text, statistics.median(ratios), 0.8, at_least=True)
    child("second", folder, rows)
    yield line("second start over the same rows, s of CPU", child("second", folder, rows), 3.0)
    stream = child("stream", folder, million)
    yield line(f"stream of {STREAMED} rows, s to the first batch", stream["first"], 5.0)
    yield line(f"stream of {STREAMED} rows, GiB of memory above the imports", stream["above"], 1.0)
    yield line(f"stream of {STREAMED} rows, GiB of memory in all", stream["peak"], 1.0)
    yield line(f"entering a stream at row {RESUMED_AT}, s", child("resume", folder, million), 2.0)


def line(what: str, value: float, bar: float, *, at_least: bool = False) -> bool:
    """Print a measurement beside its bar."""
    met = value >= bar if at_least else value <= bar
    print(f"{what:<72} {value:6.2f}  (bar {'>=' if at_least else '<='} {bar:g}){'' if met else '  MISSED'}", flush=True)
    return met


def child(part: str, folder: Path, *more: object, threads: int | None = None) -> Any:
    """Run one part in a process of its own, so that none profits from another's warmth."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    if threads is not None:
        environment |= {"RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": str(threads > 1).lower()}
    command = [sys.executable, __file__, "--part", part, str(folder), *map(str, more)]
    found = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(found.stdout.splitlines()[-1])


def write_rows(path: Path, count: int, most: int = 400) -> Path:
    """Instruction rows of random words; lengths spread as those of real ones, most of them short."""
    vocabulary = json.loads(gzip.decompress(TOKENIZER.read_bytes()))["model"]["vocab"]
    begun = (piece[1:] for piece in vocabulary if piece[:1] == "Ġ")
    words = sorted(piece for piece in begun if piece.isascii() and piece.isalpha())
    chance = random.Random(0)
    texts = [" ".join(chance.choices(words, k=max(3, int(chance.lognormvariate(3.5, 1)) % most))) for _ in range(4000)]
    with path.open("w") as file:
        for number in range(count):
            query, response = texts[number % 4000], texts[(number * 7 + 13) % 4000]
            file.write(json.dumps({"query": f"{number} {query}", "response": f"{response}."}) + "\n")
    return path


def clock() -> float:
    """Seconds on the wall, or of the processor for this process and the workers it has waited for."""
    if os.environ["BENCH_CLOCK"] == "wall":
        return time.perf_counter()
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def raw_rate(folder: str, rows: str) -> float:
    """Rows/s of `encode_batch` over the finished prompts, nothing else."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    prompts = []
    for text in Path(rows).read_text("utf-8").splitlines():
        row = json.loads(text)
        prompts.append(
            f"<|im_start|>user\n{row['query']}<|im_end|>\n<|im_start|>assistant\n{row['response']}<|im_end|>\n"
        )
    tokenizer.encode_batch(prompts[:COMMIT], add_special_tokens=False)
    start = clock()
    for place in range(0, len(prompts), COMMIT):
        tokenizer.encode_batch(prompts[place : place + COMMIT], add_special_tokens=False)
    return len(prompts) / (clock() - start)


def our_rate(folder: str, rows: str, workers: str) -> float:
    """Rows/s of reading, converting, rendering, tokenizing, masking and the ledger."""
    build = builder(folder, "--dataset", rows, "--no_cache", "true", "--preprocess_num_proc", workers)
    start = clock()
    built = build()
    seconds = clock() - start
    return (len(built.train) + len(built.val)) / seconds


def second_start(folder: str, rows: str) -> float:
    """Seconds of CPU until the examples are ready, with what the cache holds; imports and tokenizer left out."""
    build = builder(folder, "--dataset", rows)
    start = time.process_time()
    built = build()
    built.train[0]
    return time.process_time() - start


def stream_million(folder: str, rows: str) -> dict[str, float]:
    """Seconds to the first batch, and memory after all rows were read through the stream."""
    import resource

    from swift.data import preprocess
    from swift.data.preprocess import Made

    build = builder(folder, "--dataset", rows, "--streaming", "true", "--max_steps", "1")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    train = build().train
    items = iter(train)
    for _ in range(4):
        next(items)
    first = time.perf_counter() - start
    # Encoding a million rows takes minutes and holds nothing; what could grow is the reading and the buffer.
    preprocess.encode_rows = lambda group, how: [Made([], 0, 1, False)] * len(group)
    for _ in items:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"first": first, "above": (peak - before) / 2**20, "peak": peak / 2**20}


def enter_stream(folder: str, rows: str) -> float:
    """Seconds from a saved place at row 500,000 to the next item."""
    from swift.data.stream import StreamDataset

    build = builder(folder, "--dataset", rows, "--streaming", "true", "--max_steps", "1")
    train = build().train
    assert isinstance(train, StreamDataset)
    for seen, (snapshot, group) in enumerate(train._groups(train.start, [], random.Random(0))):
        if seen * len(group) >= RESUMED_AT:
            train._history.append(snapshot)
            break
    state = json.loads(json.dumps(train.state_dict()))
    resumed = build().train
    start = time.perf_counter()
    resumed.load_state_dict(state)
    next(iter(resumed))
    return time.perf_counter() - start


def builder(folder: str, *argv: str) -> Callable[[], Any]:
    """The data layer for a command line, with everything imported and the tokenizer loaded."""
    from transformers import PreTrainedTokenizerFast

    from swift import data
    from swift.catalog import load_catalog
    from swift.params.parse import parse
    from swift.plan.data import plan_data
    from swift.plan.prompt import PromptPlan
    from swift.prompts.encode import build_encoder

    catalog = load_catalog()
    plan = plan_data(parse(["sft", "--model_id_or_path", "m", *argv]), catalog)
    prompt = PromptPlan(
        template_type="chatml",
        system=None,
        tools_format=None,
        max_length=2048,
        truncation_strategy="delete",
        loss_scale=None,
    )
    file = str(Path(folder) / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, eos_token="<|im_end|>", pad_token="<|im_end|>")
    encoder = build_encoder(prompt, tokenizer, catalog)
    return lambda: data.build(plan, encoder, data.Ledger(Path(folder) / "ledger.jsonl"))


PARTS: dict[str, Callable[..., Any]] = {
    "raw": raw_rate,
    "encode": our_rate,
    "second": second_start,
    "stream": stream_million,
    "resume": enter_stream,
}


if __name__ == "__main__":
    sys.exit(main())
