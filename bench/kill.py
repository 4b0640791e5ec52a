"""python bench/kill.py [--kills 50] [--seed 0]

`swift sft` killed with SIGKILL at random moments, again and again, each time gone on with by `--resume_from_checkpoint
auto`. After each kill every checkpoint under its own name must be whole; at the end losses and weights must be those
of a run that nobody disturbed, to the last bit. A tiny random Llama, so that what is killed is mostly the writing.
Exit code 1 when anything of this does not hold.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from serve import tiny_model
from swift.core.transaction import fault
from swift.training.checkpoints import checkpoints

STEPS = 3000


def main() -> int:
    """Kill, go on, compare. -> exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args()
    rng = random.Random(said.seed)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        words = command(work)
        killed, torn = work / "killed", 0
        for number in range(said.kills):
            torn += kill_once(words, killed, rng, number)
        end_of(words, killed)
        whole = work / "whole"
        end_of(words, whole)
        same_losses = losses(killed) == losses(whole)
        same_weights = weights(killed) == weights(whole)
    print(f"{said.kills} kills, {torn} of them in the middle of writing a checkpoint")
    print(f"losses equal: {same_losses}; weights equal: {same_weights}")
    return int(not (same_losses and same_weights))


def command(work: Path) -> list[str]:
    """`swift sft` without its output folder, on a tiny model and 200 rows of its own."""
    rows = work / "rows.jsonl"
    rows.write_text("".join(json.dumps({"query": f"Say {i}", "response": f"{i} it is"}) + "\n" for i in range(200)))
    flags = {
        "model_id_or_path": tiny_model(work),
        "dataset": rows,
        "add_output_dir_suffix": "false",
        "resume_from_checkpoint": "auto",
        "max_steps": STEPS,
        "batch_size": 2,
        "gradient_accumulation_steps": 1,
        "save_steps": 5,
        "logging_steps": 5,
        "eval_steps": 100,
        "learning_rate": "1e-4",
        "report_to": "none",
    }
    return [sys.executable, "-m", "swift", "sft", *(word for k, v in flags.items() for word in (f"--{k}", str(v)))]


def kill_once(words: list[str], run: Path, rng: random.Random, number: int) -> int:
    """Start or go on, kill after a random time past the first new step. -> 1 when a checkpoint was being written."""
    log, output = run / "logging.jsonl", run.with_suffix(f".{number}.txt")
    before = log.stat().st_size if log.is_file() else 0
    with output.open("w") as file:
        process = subprocess.Popen([*words, "--output_dir", str(run)], stdout=file, stderr=file)
        while not (log.is_file() and log.stat().st_size > before):
            if process.poll() is not None:
                raise SystemExit(f"ended by itself with {process.returncode}:\n{output.read_text()[-2000:]}")
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1.5))
        process.kill()
        process.wait()
    faults = [problem for path in checkpoints(run) if (problem := fault(path)) is not None]
    if faults:
        raise SystemExit(f"kill {number}: {faults}")
    last = checkpoints(run)
    half = len(list(run.glob(".tmp-checkpoint-*")))
    print(f"kill {number + 1}: {last[-1].name if last else 'no checkpoint yet'}, {half} half-written", flush=True)
    return int(half > 0)


def end_of(words: list[str], run: Path) -> None:
    """Let the run come to its end."""
    output = run.with_suffix(".end.txt")
    with output.open("w") as file:
        if subprocess.run([*words, "--output_dir", str(run)], stdout=file, stderr=file).returncode:
            raise SystemExit(output.read_text()[-2000:])


def losses(run: Path) -> dict[str, float]:
    """The loss of each logged step; of a step that was done twice, the second."""
    events = [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]
    return {event["global_step/max_steps"]: event["loss"] for event in events if "loss" in event}


def weights(run: Path) -> bytes:
    """The adapter of the last step."""
    return (run / f"checkpoint-{STEPS}" / "adapter_model.safetensors").read_bytes()


if __name__ == "__main__":
    sys.exit(main())
