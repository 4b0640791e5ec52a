"""Speed, memory and size of every tuning method and optimizer on SmolLM2-135M, by the same rows.

    python bench/tuners.py [--only lora ia3] [--rounds 3] [--steps 5] [--model FOLDER]

Each row of the table is one `swift sft`, a process of its own, in fp32 on batches of 4 rows of about 130 tokens.
Tokens a second are those of its median step, the first left out, as a ratio to LoRA's; what has a bar of speed is
measured in rounds, by turns with LoRA. Memory is the peak resident set. A checkpoint's size is that of what it takes to
answer with it, and beside it that of what the optimizer takes to go on.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loops.watch import watch
from train import smollm2

ALIKE = (
    "--batch_size 4 --gradient_accumulation_steps 1 --max_length 512 --lora_dropout 0 --gradient_checkpointing false "
    "--dtype fp32 --logging_steps 1 --evaluation_strategy no --dataset_test_ratio 0 --add_output_dir_suffix false "
    "--report_to none"
)
FULL = "--sft_type full"
GALORE = f"{FULL} --use_galore true --galore_rank 128"
ROWS: dict[str, str] = {
    "lora": "--sft_type lora",
    "adapter": "--sft_type adapter",
    "ia3": "--sft_type ia3",
    "reft": "--sft_type reft",
    "lora+": "--sft_type lora --lora_lr_ratio 16",
    "dora": "--sft_type lora --use_dora true",
    "pissa": "--sft_type lora --init_lora_weights pissa_niter_4",
    "adalora": "--sft_type adalora --adalora_tinit 1",
    "longlora": "--sft_type longlora",
    "vera": "--sft_type vera",
    "boft": "--sft_type boft",
    "fourierft": "--sft_type fourierft",
    "llamapro": "--sft_type llamapro --llamapro_num_new_blocks 3",
    "full": FULL,
    "full, adafactor": f"{FULL} --optim adafactor",
    "full, 8-bit AdamW": f"{FULL} --optim adamw_8bit",
    "galore": GALORE,
    "galore, at once": f"{GALORE} --galore_optim_per_parameter true",
    "q-galore": f"{GALORE} --galore_quantization true",
    "lisa": f"{FULL} --lisa_activated_layers 2",
}
IN_ROUNDS = ("lora", "adapter", "ia3", "reft")
PERIODS = {"galore": 50, "galore, at once": 50, "q-galore": 50}
"""Steps between two of the searches that the first step does; their cost is spread over so many."""
SPEED_BAR, LISA_BAR = 0.9, 0.75


@dataclass(frozen=True)
class Measured:
    """One run: tokens a second, sizes in MiB."""

    speed: float
    memory: float
    trained: float
    """Millions of parameters."""
    weights: float
    optimizer: float


def main() -> int:
    """Run the rows, print the table. -> 1 when a bar is missed."""
    options = _options()
    model = Path(options.model) if options.model else smollm2()
    measured: dict[str, list[Measured]] = {name: [] for name in options.only}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for name in options.only:
                if number == 0 or name in IN_ROUNDS:
                    work = Path(folder) / str(number)
                    run = _run(work, name, _words(ROWS[name], options.steps), model)
                    shutil.rmtree(work)
                    measured[name].append(run)
                    print(f"{name:18} {run.speed:8.1f} tokens/s {run.memory:7.0f} MiB", file=sys.stderr, flush=True)
    own = "--model_id_or_path SmolLM2-135M-Instruct --dataset rows.jsonl --output_dir run"
    print(f"swift sft {own} {shlex.join(_words('', options.steps))} FLAGS\n\n{table(measured)}\n")
    lines = bars(measured)
    print("\n".join(text for _, text in lines))
    return int(not all(held for held, _ in lines))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--rounds", type=int, default=3, help="how often what has a bar of speed is measured")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--model", help="a model folder; SmolLM2-135M-Instruct without it")
    return parser.parse_args()


def _words(flags: str, steps: int) -> list[str]:
    return [*shlex.split(flags), *shlex.split(ALIKE), "--max_steps", str(steps), "--save_steps", str(steps)]


def _run(folder: Path, name: str, words: Sequence[str], model: Path) -> Measured:
    """One `swift sft`, and what it left."""
    folder.mkdir()
    rows, output = folder / "rows.jsonl", folder / "run"
    text = "the river of the data is the light of a number and an answer to the question because model " * 5
    rows.write_text("".join(json.dumps({"query": f"Say {i}", "response": f"{i} {text}"}) + "\n" for i in range(64)))
    own = ["--model_id_or_path", str(model), "--dataset", str(rows), "--output_dir", str(output)]
    command = [sys.executable, "-m", "swift", "sft", *own, *words]
    events, memory, _ = watch(command, folder, output / "logging.jsonl")
    first, *later = (event["tokens/s"] for event in events if "tokens/s" in event)
    median, period = statistics.median(later), PERIODS.get(name, 1)
    trained = re.search(r"\((\S+)M Trainable", (folder / "output.txt").read_text())
    assert trained is not None
    (checkpoint,) = output.glob("checkpoint-*")
    return Measured(
        speed=period / ((period - 1) / median + 1 / first) if period > 1 else median,
        memory=memory * 2**10,
        trained=float(trained[1]),
        weights=_size(checkpoint, "**/*.safetensors"),
        optimizer=_size(checkpoint, "optimizer.pt"),
    )


def _size(folder: Path, pattern: str) -> float:
    return sum(file.stat().st_size for file in folder.glob(pattern)) / 2**20


def table(measured: Mapping[str, Sequence[Measured]]) -> str:
    """A row each, in Markdown."""
    lines = ["| | flags | tokens/s / LoRA | peak MiB | trained M | checkpoint MiB | optimizer MiB |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, runs in measured.items():
        run, ratio = runs[0], speed_ratio(measured, name)
        shown = "" if ratio is None else f"{ratio:.2f}"
        sizes = f"{run.memory:.0f} | {run.trained:.4g} | {run.weights:.1f} | {run.optimizer:.1f}"
        lines.append(f"| {name} | `{ROWS[name]}` | {shown} | {sizes} |")
    return "\n".join(lines)


def speed_ratio(measured: Mapping[str, Sequence[Measured]], name: str) -> float | None:
    """Tokens a second over LoRA's: the median of the rounds, each to the LoRA of its own."""
    if "lora" not in measured:
        return None
    return statistics.median(
        run.speed / lora.speed for run, lora in zip(measured[name], measured["lora"], strict=False)
    )


def bars(measured: Mapping[str, Sequence[Measured]]) -> list[tuple[bool, str]]:
    """Whether each bar holds, and a line about it, for the rows that were measured."""
    lines: list[tuple[bool, str]] = []
    for name in IN_ROUNDS[1:]:
        ratio = speed_ratio(measured, name) if name in measured else None
        if ratio is not None:
            lines.append((ratio >= SPEED_BAR, f"{name}: {ratio:.2f} of LoRA's tokens/s (bar: at least {SPEED_BAR})"))
    full = measured["full"][0] if "full" in measured else None
    for name in ("galore", "galore, at once", "q-galore", "full, 8-bit AdamW") if full else ():
        if name in measured:
            assert full is not None
            less, states = full.memory - measured[name][0].memory, full.optimizer - measured[name][0].optimizer
            lines.append((less >= states, f"{name}: {less:.0f} MiB below full (bar: the {states:.0f} MiB of states)"))
    if full and "lisa" in measured:
        share = measured["lisa"][0].memory / full.memory
        lines.append((share <= LISA_BAR, f"lisa: {share:.2f} of the memory of full (bar: at most {LISA_BAR})"))
    return lines


if __name__ == "__main__":
    sys.exit(main())
