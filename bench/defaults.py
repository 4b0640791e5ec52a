"""Fine-tuning by a newcomer, who gives a model and rows and nothing else: `swift sft` and its peers at their defaults.

    python bench/defaults.py [--rows alpaca.json] [--model FOLDER] [--runs 1] [--limit 3600] [--only bare swift trl …]

200 instruction rows, one epoch for all (some peers take three), SmolLM2-135M. Each run is a process of its own: the
tokens of the rows by the time that training took, by the time from the command to the last file of the last
checkpoint, and the peak resident set. Beside them a bare padding-free loop at its best settings (batches of 4, all
activations kept), which loads, trains and writes nothing else. LLaMA-Factory and ms-swift get an environment of their
own in ~/.cache/swift/bench the first time, with this one's torch; one that does not work is said and left out. One that
is not done after `--limit` seconds is ended, and counts as if it were done then: its speed is at most that, its memory
at least. TRL computes in bf16 by itself, which is about twice as fast as fp32 on a CPU with instructions for it; so it
also runs in fp32, and swift in bf16.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from loops.watch import Endless, watch
from train import BATCH, _rows, smollm2

CACHE = Path.home() / ".cache" / "swift" / "bench"
LOOPS = Path(__file__).parent / "loops"
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What SmolLM2's template puts before each row, for those who do not read it."""
BARS = {"bare": 1.0, "trl": 3.5, "trl-fp32": 3.5, "llamafactory": 2.5, "ms-swift": 2.5}
"""How many times as fast as each of them, in tokens a second of training."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What everybody is given."""

    model: Path
    rows: Path
    """Alpaca rows, one a line; `rows.json` beside it holds the same as a list."""
    folder: Path
    """Where a participant writes."""


@dataclass(frozen=True, kw_only=True)
class Participant:
    """A way to fine-tune: its command, and where its log says how many seconds training took."""

    command: Callable[[Work], list[str]]
    seconds: Callable[[list[dict[str, Any]]], float]
    log: str
    package: str | None = None
    """What is installed in an environment of its own; None runs in this one."""


def main() -> int:
    """Run everybody, print a table and the ratios. -> 1 when a bar is missed."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        rows = _rows(options.rows)[: options.count]
        (work / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (work / "rows.json").write_text(json.dumps(rows))
        model = Path(options.model) if options.model else smollm2()
        tokens = _tokens(model, rows)
        print(f"{len(rows)} rows, {tokens:,} tokens", flush=True)
        results: dict[str, list[tuple[float, float, float]]] = {}
        for number in range(options.runs):
            for name in options.only:
                given = Work(model=model, rows=work / "rows.jsonl", folder=work / f"{name}{number}")
                measured = _run(name, given, tokens, options.limit)
                if measured is not None:
                    results.setdefault(name, []).append(measured)
    return _report({name: tuple(map(statistics.median, zip(*runs, strict=True))) for name, runs in results.items()})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", help="a JSON list of alpaca rows; rows of the same lengths are made up without it")
    parser.add_argument("--model", help="a model folder; SmolLM2-135M-Instruct without it")
    parser.add_argument("--count", type=int, default=200, help="rows")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--limit", type=float, default=3600, help="seconds that a run may take")
    parser.add_argument("--only", nargs="+", default=list(PARTICIPANTS), choices=list(PARTICIPANTS))
    return parser.parse_args()


def _tokens(model: Path, rows: list[dict[str, str]]) -> int:
    """Tokens of all rows, as chats of two turns behind the system text of the model's template."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    chats = []
    for row in rows:
        asked = "\n".join(filter(None, (row["instruction"], row["input"])))
        chats.append([{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}])
    return sum(len(tokenizer(text).input_ids) for text in tokenizer.apply_chat_template(chats, tokenize=False))


def _run(name: str, work: Work, tokens: int, limit: float) -> tuple[float, float, float] | None:
    """Tokens a second of training, tokens a second from command to checkpoint, peak memory in GiB; None: it failed."""
    participant = PARTICIPANTS[name]
    work.folder.mkdir()
    if participant.package is not None and not _installed(name, participant.package):
        return None
    began = time.time()
    try:
        events, memory, _ = watch(participant.command(work), work.folder, work.folder / participant.log, limit)
    except Endless as ended:
        measured = tokens / limit, tokens / limit, ended.memory
        print(_line(name, measured, f"   (at most: not done after {limit:.0f} s)"), flush=True)
        return measured
    except (SystemExit, OSError) as error:
        print(f"{name} does not run: {error}", flush=True)
        return None
    last = max(file.stat().st_mtime for file in work.folder.rglob("*") if file.is_file())
    measured = tokens / participant.seconds(events), tokens / (last - began), memory
    print(_line(name, measured), flush=True)
    return measured


def _installed(name: str, package: str) -> bool:
    """Whether the peer is in its environment, which is made the first time."""
    ready = CACHE / name / "ready"
    if ready.is_file():
        return True
    venv.create(CACHE / name, with_pip=True, clear=True)
    pip = [str(CACHE / name / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    ours = f"torch=={version('torch').partition('+')[0]}"
    result = subprocess.run([*pip, package, ours], capture_output=True, text=True)
    if result.returncode:
        print(f"{name} does not install: {result.stderr.strip()[-1000:]}", flush=True)
        return False
    # Their wheels for CUDA do not load beside a CPU's torch. transformers does without them where they are missing;
    # LLaMA-Factory only imports torchaudio, which text never needs.
    for wheel in ("torchvision", "torchaudio"):
        if subprocess.run([pip[0], "-c", f"import {wheel}"], capture_output=True).returncode:
            subprocess.run([*pip[:3], "uninstall", "--quiet", "--yes", wheel], check=True)
    if name == "llamafactory" and subprocess.run([pip[0], "-c", "import torchaudio"], capture_output=True).returncode:
        (site_packages,) = (CACHE / name / "lib").glob("python*/site-packages")
        (site_packages / "torchaudio.py").write_text('"""Empty: see bench/defaults.py."""\n')
    ready.touch()
    return True


def _line(name: str, measured: tuple[float, float, float], note: str = "") -> str:
    speed, whole, memory = measured
    return f"{name:12} {speed:7.1f} tokens/s in training, {whole:7.1f} from start to end, {memory:5.2f} GiB{note}"


def _report(medians: dict[str, Any]) -> int:
    print()
    for name, median in medians.items():
        print(_line(name, median, "   (medians)"))
    if "swift" not in medians:
        return 0
    ours, missed = medians["swift"], False
    for name, bar in BARS.items():
        if name in medians:
            theirs = medians[name]
            missed |= ours[0] < bar * theirs[0]
            print(f"tokens/s swift / {name:12} {ours[0] / theirs[0]:5.2f}   (bar: at least {bar})")
            if name != "bare":
                missed |= ours[2] > theirs[2]
                print(f"memory   swift / {name:12} {ours[2] / theirs[2]:5.2f}   (bar: at most 1)")
    if {"swift-bf16", "trl"} <= set(medians):
        print(f"tokens/s of both in bf16, swift / trl {medians['swift-bf16'][0] / medians['trl'][0]:5.2f}")
    return int(missed)


# Who takes part.


def _swift(work: Work, *more: str) -> list[str]:
    flags = ["--model_id_or_path", str(work.model), "--dataset", str(work.rows), "--output_dir", str(work.folder)]
    return [sys.executable, "-m", "swift", "sft", *flags, "--add_output_dir_suffix", "false", *more]


def _bare(work: Work) -> list[str]:
    steps = len(work.rows.read_text().splitlines()) // BATCH
    return [sys.executable, str(LOOPS / "bare_loop.py"), str(work.model), str(work.rows), str(work.folder), str(steps)]


def _trl(work: Work, *more: str) -> list[str]:
    return [sys.executable, str(LOOPS / "trl_defaults.py"), str(work.model), str(work.rows), str(work.folder), *more]


def _llamafactory(work: Work) -> list[str]:
    described = {"rows": {"file_name": str(work.rows.with_suffix(".json"))}}
    (work.folder / "dataset_info.json").write_text(json.dumps(described))
    flags = {
        **{"model_name_or_path": str(work.model), "dataset_dir": str(work.folder), "dataset": "rows"},
        **{"stage": "sft", "do_train": True, "finetuning_type": "lora", "template": "smollm2", "num_train_epochs": 1},
        "output_dir": str(work.folder / "output"),
    }
    (work.folder / "run.yaml").write_text(json.dumps(flags))
    return [str(CACHE / "llamafactory" / "bin" / "llamafactory-cli"), "train", str(work.folder / "run.yaml")]


def _ms_swift(work: Work) -> list[str]:
    flags = {
        **{"model": work.model, "dataset": work.rows, "output_dir": work.folder, "add_version": "false"},
        **{
            "system": SYSTEM,
            "model_type": "llama",
            "template": "chatml",
            "torch_dtype": "float32",
        },  # bf16, its default, asks for a GPU
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return [str(CACHE / "ms-swift" / "bin" / "swift"), "sft", *words]


def _of_steps(events: list[dict[str, Any]]) -> float:
    return sum(event["tokens"] / event["tokens/s"] for event in events)


def _of_runtime(events: list[dict[str, Any]]) -> float:
    """transformers' `train_runtime`, wherever the log has it."""
    times = [event.get("train_time", event).get("train_runtime") for event in events]
    return next(seconds for seconds in reversed(times) if seconds)


def _of_elapsed(events: list[dict[str, Any]]) -> float:
    """LLaMA-Factory's `elapsed_time`, in whole seconds: `1:02:03`."""
    hours, minutes, seconds = map(int, events[-1]["elapsed_time"].split(":"))
    return 3600 * hours + 60 * minutes + seconds


PARTICIPANTS = {
    "bare": Participant(command=_bare, seconds=_of_steps, log="steps.jsonl"),
    "swift": Participant(command=_swift, seconds=_of_runtime, log="logging.jsonl"),
    "swift-bf16": Participant(
        command=lambda work: _swift(work, "--dtype", "bf16"), seconds=_of_runtime, log="logging.jsonl"
    ),
    "trl": Participant(command=_trl, seconds=_of_runtime, log="log.jsonl"),
    "trl-fp32": Participant(command=lambda work: _trl(work, "fp32"), seconds=_of_runtime, log="log.jsonl"),
    "llamafactory": Participant(
        command=_llamafactory, seconds=_of_elapsed, log="output/trainer_log.jsonl", package="llamafactory"
    ),
    "ms-swift": Participant(command=_ms_swift, seconds=_of_runtime, log="logging.jsonl", package="ms-swift"),
}


if __name__ == "__main__":
    sys.exit(main())
