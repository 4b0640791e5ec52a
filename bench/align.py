"""Speed and memory of `swift dpo` with and without shared prompts against TRL, interleaved in one run.

    python bench/align.py [--rows pairs.json] [--model FOLDER] [--runs 3] [--steps 8] [--only swift apart trl]

The work: DPO with LoRA of rank 8 on q, k, v, the reference being the model without its adapter, batches of 2 pairs of
at most 2,048 tokens, fp32. Each run is a process of its own; the pairs a second after its first step and its peak
resident set are measured the same way for all. Ratios are of medians over the runs. TRL comes from the same environment
(`make setup` puts it there with the tests' tools); 1.16 switches `padding_free` off for DPO, so its batches are padded.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loops.watch import watch
from train import smollm2

BATCH = 2
NAMES = ("swift", "apart", "trl")
"""Ours with shared prompts, ours without, TRL."""


@dataclass(frozen=True)
class Measured:
    """One run: pairs a second, peak resident set in GiB, and the token ratio that `swift` printed."""

    speed: float
    memory: float
    ratio: float


def main() -> int:
    """Run everybody, print a table and the ratios. -> 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", help="a JSON list of ShareGPT pairs; pairs of such lengths are made up without it")
    parser.add_argument("--model", help="a model folder; SmolLM2-135M-Instruct without it")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--only", nargs="+", default=list(NAMES), choices=NAMES)
    options = parser.parse_args()
    model = Path(options.model) if options.model else smollm2()
    runs: dict[str, list[Measured]] = {name: [] for name in options.only}
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.jsonl")
        pairs = _rows(options.rows)[: options.steps * BATCH]
        rows.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in pairs), encoding="utf-8")
        for number in range(options.runs):
            for name in options.only:
                measured = _run(name, Path(folder, f"{name}{number}"), rows, model, options.steps)
                runs[name].append(measured)
                print(f"{name:6} {measured.speed:7.3f} pairs/s {measured.memory:6.2f} GiB", flush=True)
    return _report(runs)


def _rows(source: str | None) -> list[dict[str, Any]]:
    """Pairs as messages with a rejected answer, of at most about 2,048 tokens."""
    if source is None:
        rng = random.Random(0)
        words = ["the", "of", "and", "to", "model", "data", "river", "light", "number", "answer", "question", "because"]

        def text(low: int, mode: int, high: int) -> str:
            return " ".join(rng.choices(words, k=int(rng.triangular(low, high, mode))))

        return [
            _pair([("user", text(20, 150, 800)), ("assistant", text(40, 250, 500))], text(40, 250, 500))
            for _ in range(200)
        ]
    speakers = {"human": "user", "gpt": "assistant", "system": "system"}
    pairs = []
    for row in json.loads(Path(source).read_text(encoding="utf-8")):
        turns = [(speakers[turn["from"]], turn["value"]) for turn in (*row["conversations"], row["chosen"])]
        longest = sum(len(text) for _, text in turns) + len(row["rejected"]["value"])
        if longest < 6000:  # characters: well below 2,048 tokens, so that nobody cuts or drops a pair
            pairs.append(_pair(turns, row["rejected"]["value"]))
    return pairs


def _pair(turns: list[tuple[str, str]], rejected: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in turns], "rejected_response": rejected}


def _run(name: str, folder: Path, rows: Path, model: Path, steps: int) -> Measured:
    folder.mkdir()
    if name == "trl":
        loop = Path(__file__).parent / "loops" / "trl_dpo.py"
        script = [sys.executable, *map(str, (loop, model, rows, folder, steps, BATCH))]
        events, memory, _ = watch(script, folder, folder / "steps.jsonl")
    else:
        flags = _flags(model, rows, folder, steps, share="AUTO" if name == "swift" else "false")
        script = [sys.executable, "-m", "swift", "dpo", *flags]
        events, memory, _ = watch(script, folder, folder / "logging.jsonl")
    speeds = [event["train_speed(iter/s)"] for event in events if event.get("train_speed(iter/s)")]
    ratio = re.search(r"makes ([\d.]+) x fewer tokens", (folder / "output.txt").read_text())
    return Measured(BATCH * speeds[-1], memory, float(ratio[1]) if ratio else 1.0)


def _flags(model: Path, rows: Path, folder: Path, steps: int, *, share: str) -> list[str]:
    flags = {
        "model_id_or_path": model,
        "dataset": rows,
        "output_dir": folder,
        "add_output_dir_suffix": "false",
        "share_prompts": share,
        "answer_samples": 0,
        "precompute_ref_log_probs": "false",
        "rpo_alpha": 0,
        "lora_rank": 8,
        "lora_alpha": 32,
        "lora_dropout": 0,
        "max_length": 2048,
        "batch_size": BATCH,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": "false",
        "max_steps": steps,
        "logging_steps": 1,
        "metric_warmup_step": 1,
        "evaluation_strategy": "no",
        "dataset_test_ratio": 0,
        "learning_rate": "1e-4",
        "no_cache": "true",
    }
    return [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]


def _report(runs: dict[str, list[Measured]]) -> int:
    def median(name: str, field: str) -> float:
        return statistics.median(getattr(run, field) for run in runs[name])

    missed = False

    def say(what: str, ratio: float, bar: float, least: bool = True) -> None:
        nonlocal missed
        missed |= ratio < bar if least else ratio > bar
        print(f"{what:36} {ratio:5.2f}   (bar: at {'least' if least else 'most'} {bar})")

    print()
    if {"swift", "trl"} <= runs.keys():
        say("pairs/s   swift / trl", median("swift", "speed") / median("trl", "speed"), 1.5)
        say("memory    swift / trl", median("swift", "memory") / median("trl", "memory"), 0.8, least=False)
    if {"swift", "apart"} <= runs.keys():
        gain, tokens = median("swift", "speed") / median("apart", "speed"), median("swift", "ratio")
        print(f"prompts shared: {tokens:.3f} x fewer tokens, {gain:.3f} x faster")
        say("gain / token ratio", gain / tokens, 0.93)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
