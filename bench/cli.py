"""How long the command line takes to answer, as ratios to `python -c pass` measured in the same run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 15
BARS = {"swift --help": 6.0, "swift sft --lerning_rate 1": 6.0, "swift sft --help-all": 8.0}


def seconds(command: list[str]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - start


def main() -> int:
    """Interleaved rounds, medians; exit code 1 when a bar is missed."""
    bare = [sys.executable, "-c", "pass"]
    lines = {text: [str(Path(sys.executable).with_name("swift")), *text.split()[1:]] for text in BARS}
    taken: dict[str, list[float]] = {text: [] for text in ("python -c pass", *lines)}
    for _ in range(ROUNDS):
        taken["python -c pass"].append(seconds(bare))
        for text, command in lines.items():
            taken[text].append(seconds(command))
    base = statistics.median(taken["python -c pass"])
    missed = False
    for text, times in taken.items():
        ratio = statistics.median(times) / base
        bar = BARS.get(text)
        missed |= bar is not None and ratio > bar
        print(
            f"{text:<28} {statistics.median(times) * 1e3:7.1f} ms  {ratio:5.2f}x" + (f"  (bar {bar:g}x)" if bar else "")
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
