"""What happens to faults that users reported, in `swift` and in its peers: runs the cells of the table one by one.

    python bench/faults/run.py [--tools swift trl …] [--faults all-masked …] [--prepare | --judge]

Cells run in ~/.cache/swift/bench/faults/TOOL/FAULT, a folder that is made anew, with one thread, without network and
without a GPU, as forks of a process that has imported the tool's libraries; what they said stays there. Verdicts go to
results.json beside this file, and from there to docs/evidence.md (page.py). `--prepare` makes the folders, in which the
commands of the page can be typed, and runs nothing; `--judge` runs nothing and judges again what was said. TRL comes
from the environment of `make setup`; the environments of LLaMA-Factory and ms-swift 2.5.2 are made by environments.py.
The cell of the full disk mounts one of memory, which takes Linux and root.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from judge import Judged, judge, lines_of
from prepare import LLAMA3, REWARDS, damage, make_models
from probes import fingerprints, harmed
from tools import ENVIRONMENTS, HERE, TOOLS, Command, Tool

from train import smollm2

CELLS = ENVIRONMENTS / "faults"
RESULTS = HERE / "results.json"
SECONDS = 150
"""A cell that takes longer hangs; most take ten to thirty."""
SMALL_DISK = 'mount -t tmpfs -o size={} tmpfs out && exec "$@"'


def main() -> None:
    """Run the cells asked for, and write each verdict as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    faults = {fault["id"]: fault for fault in tomllib.loads((HERE / "faults.toml").read_text())["fault"]}
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=list(TOOLS))
    parser.add_argument("--faults", nargs="+", default=list(faults), choices=list(faults), metavar="FAULT")
    parser.add_argument("--prepare", action="store_true", help="run nothing, make the folders of the cells")
    parser.add_argument("--judge", action="store_true", help="run nothing, judge again what was said")
    options = parser.parse_args()
    make_models(CELLS / "models", smollm2())
    for tool in (TOOLS[name] for name in options.tools):
        with Started(tool) as started:
            for fault in (faults[name] for name in options.faults):
                cell = CELLS / tool.name / fault["id"]
                if options.prepare:
                    print(make_cell(tool, fault, cell), flush=True)
                    continue
                if tool.name not in fault.get("not_applicable", {}) and not options.judge:
                    run_cell(started, fault, cell)
                found = result(tool, fault, cell)
                keep(tool, fault["id"], found)
                print(f"{tool.name:12} {fault['id']:26} {found['verdict']:9} {found['line'][:120]}", flush=True)


def run_cell(started: Started, fault: dict[str, Any], cell: Path) -> None:
    """Do what the fault says, up to the first step that fails: what was run goes to did.json, what it said beside."""
    make_cell(started.tool, fault, cell)
    did: list[dict[str, Any]] = []
    before: dict[str, str] = {}
    for number, step in enumerate(fault["do"]):
        if number == len(fault["do"]) - 1 and "kept" in fault.get("harm", {}):
            before = fingerprints(cell / fault["harm"]["kept"])
        if "damage" in step:
            damage(step["damage"], cell / step["of"])
            did.append({"shown": f"# {step['damage'].replace('-', ' ')} in {step['of']}", "exit": 0, "seconds": 0})
        else:
            did.append(do(started, step, cell, cell / f"said-{number}.txt"))
        if did[-1]["exit"] != 0:
            break
    (cell / "did.json").write_text(json.dumps({"did": did, "before": before}))


def make_cell(tool: Tool, fault: dict[str, Any], cell: Path) -> Path:
    """The folder of a cell made anew, with the model and the rows that its commands name. -> the folder."""
    shutil.rmtree(cell, ignore_errors=True)
    cell.mkdir(parents=True)
    # Copies: some tools show where a link leads to, whose name names the fault.
    shutil.copytree(CELLS / "models" / f"{fault.get('model', 'plain')}-model", cell / "model")
    shutil.copytree(CELLS / "models" / "other-model", cell / "model-2")
    (cell / "rewards.py").write_text(REWARDS)
    (cell / "llama3.jinja").write_text(LLAMA3)
    (cell / "bench" / "faults").mkdir(parents=True)
    shutil.copy(HERE / "merge_with_peft.py", cell / "bench" / "faults")
    for step in fault["do"]:
        if "damage" not in step and tool.name not in fault.get("not_applicable", {}):
            tool.write(step, cell)
    return cell


def do(started: Started, step: dict[str, Any], cell: Path, said: Path) -> dict[str, Any]:
    """One command of a cell. -> how it is shown, its exit code (None: it was stopped), how long it took."""
    tool = started.tool
    kind = next(kind for kind in ("train", "merge", "infer") if kind in step)
    command: Command = getattr(tool, kind)(step, cell)
    words, shown = command.words, command.shown()
    if "disk" in step:
        (cell / "out").mkdir()
        words = ["unshare", "-m", "sh", "-c", SMALL_DISK.format(step["disk"]), "sh", *words]
        shown += f"  # out is a disk of {step['disk']}"
    began = time.monotonic()
    code = started.run(words, cell, said, command.typed)
    return {"shown": shown, "exit": code, "seconds": round(time.monotonic() - began)}


class Started:
    """A tool whose libraries are imported (warm.py), and which can run many commands without importing them again."""

    def __init__(self, tool: Tool):
        self.tool = tool
        self._cache = CELLS / tool.name / ".cache"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Started:
        shutil.rmtree(self._cache, ignore_errors=True)
        self._cache.mkdir(parents=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.communicate()

    def run(self, words: list[str], cell: Path, said: Path, typed: Path | None) -> int | None:
        """-> the exit code; None: it was stopped after `SECONDS`."""
        if words[0] not in ("swift", "llamafactory-cli") and words[:2] != ["python", "-m"]:
            return self._apart(words, cell, said)
        if self._process is None:
            script = [str(self.tool.binaries / "python"), str(HERE / "warm.py"), self.tool.name]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self._process = subprocess.Popen(script, env=self._environment(), cwd=self._cache, **pipes)
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        own = {"XDG_CACHE_HOME": str(cell / ".cache"), "PWD": str(cell)}
        asked = {"words": words, "cell": str(cell), "said": str(said), "environment": own, "seconds": SECONDS}
        process.stdin.write(json.dumps({**asked, "typed": typed and str(cell / typed)}) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    def _apart(self, words: list[str], cell: Path, said: Path) -> int | None:
        with said.open("w") as output:
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            try:
                return subprocess.run(words, cwd=cell, env=self._environment(), timeout=SECONDS, **streams).returncode
            except subprocess.TimeoutExpired:
                return None

    def _environment(self) -> dict[str, str]:
        """The same for all tools: one thread, no network, no GPU, caches of their own."""
        not_ours = ("PYTHON", "HF_", "VIRTUAL_ENV")
        own = {name: value for name, value in os.environ.items() if not name.startswith(not_ours)}
        if self.tool.name == "swift":
            own["PYTHONPATH"] = str(HERE.parents[1] / "src")
        caches = {name: str(self._cache) for name in ("XDG_CACHE_HOME", "HF_HOME", "MODELSCOPE_CACHE")}
        offline = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"), "1")
        quiet = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "NO_COLOR": "1"}
        path = {"PATH": f"{self.tool.binaries}:{own['PATH']}", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}
        return {**own, **caches, **offline, **quiet, **path, **self.tool.variables}


def result(tool: Tool, fault: dict[str, Any], cell: Path) -> dict[str, Any]:
    """The verdict on what lies in the cell's folder."""
    if tool.name in fault.get("not_applicable", {}):
        return {
            "verdict": "none",
            "line": fault["not_applicable"][tool.name],
            "commands": [],
            "exit": None,
            "seconds": 0,
        }
    file = json.loads((cell / "did.json").read_text())
    did, before = file["did"], file["before"]
    last = len(did) - 1
    # The cell's folder has the fault in its name, which is not the tool's merit.
    said = (cell / f"said-{last}.txt").read_text(errors="replace").replace(str(cell), ".")
    judged = judge(said, did[-1]["exit"], fault["names"])
    if len(did) < len(fault["do"]):
        judged = Judged("unproved", f"a step before failed: {(lines_of(said) or [''])[-1]}")
    elif judged.verdict == "silent" and "harm" in fault:
        harm, shows = harmed(fault["harm"], cell, fault["do"][-1], before, CELLS / "models" / "plain-model")
        judged = Judged({None: "unproved", True: "silent", False: "right"}[harm], shows)
    line = judged.line.replace(str(Path.home()), "~").strip()
    return {
        "verdict": judged.verdict,
        "line": line if len(line) <= 300 else line[:297] + "…",
        "commands": [one["shown"] for one in did],
        "exit": did[-1]["exit"],
        "seconds": sum(one["seconds"] for one in did),
    }


def keep(tool: Tool, fault: str, found: dict[str, Any]) -> None:
    """Put a verdict into the file of results, which keeps those of other cells."""
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"tools": {}, "cells": {}}
    results["tools"][tool.name] = installed(tool)
    results["cells"].setdefault(fault, {})[tool.name] = found
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@cache
def installed(tool: Tool) -> dict[str, str]:
    """Versions of the tool and of what carries it."""
    packages = (tool.package, "torch", "transformers", "peft", "datasets")
    if tool.name == "swift":
        return {package: version(package) for package in packages}
    ask = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    asked = [str(tool.binaries / "python"), "-c", ask, *packages]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    return dict(zip(packages, said.split(), strict=True))


if __name__ == "__main__":
    main()
