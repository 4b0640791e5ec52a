"""How soon the command line answers, and what its commands take to start, as ratios measured in the same run.

Answers are wall time of `python -c pass`. Starts are CPU time of `import torch`, which other programs on the machine
disturb little: a dry run to its end, an answer of one token, a server until it is ready, training to its first step,
which has a bar of its own: a share of what the bare loop of train.py takes to its first. Beside them stands the help of
the peers that are installed, here or by faults/environments.py.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from train import smollm2

ROUNDS, STARTS, PEERS_ROUNDS = 15, 3, 3
ENVIRONMENTS = Path.home() / ".cache" / "swift" / "bench"
ANSWERS = {"swift --help": 6.0, "swift sft --lerning_rate 1": 6.0, "swift sft --help-all": 8.0}
BARS = {"dry run": 1.75, "infer": 2.6, "deploy": 2.6}
"""Of `import torch`: 4 CPU seconds for a dry run and 6 for a server over 2.3, the strict end of what the import took in
several sittings (1.4 to 2.4)."""
FIRST_STEP = 0.8
"""Of the bare loop's."""
SWIFT = str(Path(sys.executable).with_name("swift"))
HELP = {
    "swift sft --help": SWIFT,
    "trl sft --help": str(Path(sys.executable).with_name("trl")),
    "llamafactory-cli train --help": str(ENVIRONMENTS / "llamafactory" / "bin" / "llamafactory-cli"),
    "swift sft --help (ms-swift 2.5.2)": str(ENVIRONMENTS / "ms-swift-2.5" / "bin" / "swift"),
}
"""What the help of a training command is asked of."""


def main() -> int:
    """Interleaved rounds, medians; exit code 1 when a bar is missed."""
    lines = {text: [SWIFT, *text.split()[1:]] for text in ANSWERS}
    wall: dict[str, list[float]] = {text: [] for text in ("python -c pass", *lines)}
    for _ in range(ROUNDS):
        wall["python -c pass"].append(seconds([sys.executable, "-c", "pass"]))
        for text, command in lines.items():
            wall[text].append(seconds(command))
    peers = {text: [program, *text.split()[1:3]] for text, program in HELP.items() if Path(program).is_file()}
    own_libraries = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    helped: dict[str, list[float]] = {text: [] for text in peers}
    for _ in range(PEERS_ROUNDS):
        for text, command in peers.items():
            helped[text].append(seconds(command, own_libraries))
    cpu: dict[str, list[float]] = {text: [] for text in ("import torch", *BARS, "bare loop", "first step")}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(STARTS):
            work = Path(folder) / str(number)
            work.mkdir()
            for text, (command, ready) in starts(work, smollm2()).items():
                cpu[text].append(cpu_seconds(command, work / "output.txt", ready))
    first_step = {name: cpu[name] for name in ("bare loop", "first step")}
    bars = [(wall, ANSWERS), (helped, {}), (cpu, BARS), (first_step, {"first step": FIRST_STEP})]
    missed = [report(taken, bar) for taken, bar in bars]
    return int(any(missed))


def seconds(command: list[str], environment: dict[str, str] | None = None) -> float:
    """Wall time of one run, with the environment of this program where no other is given."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, check=False)
    return time.perf_counter() - start


def starts(work: Path, model: Path) -> dict[str, tuple[list[str], Callable[[str], bool]]]:
    """Command lines, and how their output, or what they wrote in `work`, shows that they are as far as is measured."""
    rows, output, bare = work / "rows.jsonl", work / "run", work / "bare"
    texts = ({"instruction": f"Say {i}", "input": "", "output": f"It is {i}."} for i in range(100))
    rows.write_text("".join(json.dumps(row) + "\n" for row in texts))
    bare.mkdir()
    log, bare_log = output / "logging.jsonl", bare / "steps.jsonl"
    loop = [sys.executable, str(Path(__file__).parent / "loops" / "bare_loop.py"), *map(str, (model, rows, bare)), "1"]
    own = ["--model_id_or_path", str(model), "--model_type", "smollm2-135m-instruct"]
    sft = [SWIFT, "sft", *own, "--dataset", str(rows), "--output_dir", str(output), "--add_output_dir_suffix", "false"]
    one = "--show_dataset_sample 1 --max_new_tokens 1 --save_result false"
    brief = "--batch_size 1 --gradient_accumulation_steps 1 --max_steps 1 --logging_steps 1 --evaluation_strategy no"
    return {
        "import torch": ([sys.executable, "-c", "import torch"], never),
        "dry run": ([*sft, "--dry_run", "true"], never),
        "infer": ([SWIFT, "infer", *own, "--val_dataset", str(rows), *one.split()], never),
        "deploy": ([SWIFT, "deploy", *own, "--host", "127.0.0.1", "--port", "0"], lambda shown: "/v1" in shown),
        "bare loop": (loop, lambda _: bare_log.is_file() and "tokens/s" in bare_log.read_text()),
        "first step": ([*sft, *brief.split()], lambda _: log.is_file() and '"loss"' in log.read_text()),
    }


def never(_: str) -> bool:
    """Measured to its end."""
    return False


def cpu_seconds(command: list[str], output: Path, ready: Callable[[str], bool]) -> float:
    """CPU time of a program, user and system, until its output shows that it is ready, or until it ends."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with output.open("w") as shown:
        process = subprocess.Popen(command, stdout=shown, stderr=shown, stdin=subprocess.DEVNULL, env=environment)
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"{command} failed:\n{output.read_text()[-2000:]}")
            return usage.ru_utime + usage.ru_stime
        if ready(output.read_text()):
            times = psutil.Process(process.pid).cpu_times()
            process.kill()
            process.wait()
            return times.user + times.system
        time.sleep(0.05)


def report(taken: dict[str, list[float]], bars: dict[str, float]) -> bool:
    """Print medians as ratios to the first. -> whether a bar is missed."""
    base, missed = statistics.median(next(iter(taken.values()))), False
    for text, times in taken.items():
        median, bar = statistics.median(times), bars.get(text)
        missed |= bar is not None and median > bar * base
        print(f"{text:<34} {median * 1e3:7.1f} ms  {median / base:5.2f}x" + (f"  (bar {bar:g}x)" if bar else ""))
    return missed


if __name__ == "__main__":
    sys.exit(main())
