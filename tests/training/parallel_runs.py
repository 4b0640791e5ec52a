"""Runs of one and of several processes over the same rows, and how far apart they end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from training.process import finished, ranks, start

FLAGS = {
    "add_output_dir_suffix": "false",
    "max_steps": 4,
    "logging_steps": 1,
    "eval_steps": 4,
    "save_steps": 2,
    "lora_dropout": 0,
    "learning_rate": "1e-3",
    "warmup_ratio": 0,
    "dataset_test_ratio": 0.1,
    "gradient_accumulation_steps": 2,
    "report_to": "none",
}
ROWS = 42
"""38 of them are trained, 12 a step: of the two in the last step only one of several processes gets any."""
# Small weights would stay where they are, and hide what reads them as a whole.
STRICT = {
    "reduce_bucket_size": "auto",
    "stage3_prefetch_bucket_size": 0,
    "stage3_param_persistence_threshold": 0,
    "stage3_max_live_parameters": 0,
    "stage3_max_reuse_distance": 0,
}
ZERO_3 = json.dumps({"zero_optimization": {"stage": 3, **STRICT}})
FULL = ["--sft_type", "full"]
SGD = ["--optim", "sgd", "--learning_rate", "0.1"]
Launch = Callable[..., Path]


def launcher(
    command: str, model: Path, folder: Path, rows: Iterable[Mapping[str, Any]], flags: Mapping[str, Any] | None = None
) -> Launch:
    """What trains in so many processes with six rows a pass in all, and gives the folder of the run.

    None among the `flags` leaves one of `FLAGS` out."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(name: str, processes: int, *more: str) -> Path:
        given: dict[str, Any] = {**FLAGS, "model_id_or_path": model, "dataset": file, "output_dir": folder / name}
        given |= dict(flags or {})
        given |= {flag.lstrip("-"): value for flag, value in zip(more[::2], more[1::2], strict=True)}
        different_rows = processes // int(given.get("sequence_parallel_size", 1))
        given.setdefault("batch_size", 6 // different_rows)
        said = {flag: value for flag, value in given.items() if value is not None}
        words = [command, *(word for flag, value in said.items() for word in (f"--{flag}", str(value)))]
        several = ranks(processes) if processes > 1 else [{"RANK": "0"}]
        started = [start(words, folder / f"{name}.{e['RANK']}.log", e if processes > 1 else None) for e in several]
        codes = [finished(process) for process in started]
        assert codes == [0] * processes, "".join((folder / f"{name}.{i}.log").read_text() for i in range(processes))
        return folder / name

    return run


def events(run: Path) -> list[dict[str, float]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    """All losses of a run in order."""
    return [event[name] for event in events(run) for name in ("loss", "eval_loss") if name in event]


def furthest(one: Path, other: Path) -> float:
    """The largest difference between weights of the last checkpoints."""
    (first, second) = (_weights(run / "checkpoint-4") for run in (one, other))
    assert first.keys() == second.keys()
    return max((tensor - second[name]).abs().max().item() for name, tensor in first.items())


def _weights(folder: Path) -> dict[tuple[str, str], Tensor]:
    return {
        (path.name, name): tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()
    }
