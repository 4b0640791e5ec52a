"""Two processes with one core each (DDP) against one process with two threads: the same rows, steps and numbers.

    python bench/parallel.py [--model FOLDER] [--runs 3] [--steps 8] [--full]

The work is that of `train.py`: LoRA of rank 8, or with `--full` all weights, 8 instruction rows a step in fp32. Runs
take turns; the ratio is of the medians of tokens a second over all processes. Losses that differ by more than 1e-4
are an error.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from train import made_up_rows, smollm2

ROWS = 8
BAR = 0.9
WAYS = {"one": {"OMP_NUM_THREADS": "2"}, "two": {"OMP_NUM_THREADS": "1", "NPROC_PER_NODE": "2"}}


def main() -> int:
    """Run both ways in turns, print speeds and the ratio. -> 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model folder; SmolLM2-135M-Instruct without it")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--full", action="store_true", help="train all weights, which are sent in every step")
    options = parser.parse_args()
    speeds: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in made_up_rows()))
        model = Path(options.model) if options.model else smollm2()
        for number in range(options.runs):
            losses = {}
            for way in WAYS:
                events = _run(way, Path(folder) / f"{way}{number}", rows, model, options.steps, full=options.full)
                speeds[way].append(statistics.median([event["tokens/s"] for event in events][1:]))
                losses[way] = [event["loss"] for event in events]
                print(f"{way:4} {speeds[way][-1]:8.1f} tokens/s", flush=True)
            apart = max(abs(one - two) / one for one, two in zip(losses["one"], losses["two"], strict=True))
            if apart > 1e-4:
                raise SystemExit(f"the losses differ by {apart:.1e}: {losses}")
    ratio = statistics.median(speeds["two"]) / statistics.median(speeds["one"])
    print(f"tokens/s   two processes / one {ratio:5.2f}   (bar: at least {BAR})")
    return int(ratio < BAR)


def _run(way: str, folder: Path, rows: Path, model: Path, steps: int, *, full: bool) -> list[dict[str, Any]]:
    """The lines of the log that have a loss."""
    flags = {
        "model_id_or_path": model,
        "dataset": rows,
        "output_dir": folder,
        "add_output_dir_suffix": "false",
        "sft_type": "full" if full else "lora",
        "lora_dropout": 0,
        "batch_size": ROWS // (2 if way == "two" else 1),
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": "false",
        "max_steps": steps,
        "logging_steps": 1,
        "evaluation_strategy": "no",
        "save_strategy": "no",
        "dataset_test_ratio": 0,
        "report_to": "none",
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    environment = {**os.environ, **WAYS[way], "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "swift", "sft", *words], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    lines = map(json.loads, (folder / "logging.jsonl").read_text().splitlines())
    return [line for line in lines if "loss" in line and "tokens/s" in line]


if __name__ == "__main__":
    sys.exit(main())
