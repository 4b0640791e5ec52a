"""Standard benchmarks: which tasks of lm-evaluation-harness `--eval_dataset` names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swift.catalog.read import benchmark_names
from swift.core.did_you_mean import nearby
from swift.core.errors import SwiftError, raise_together

NONE = "no"
"""What the 2.5 release takes for no benchmark."""
TASK_FILES = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One name of `--eval_dataset`: a task or a group of the harness, or files that describe tasks."""

    name: str
    task: str | None = None
    path: Path | None = None
    """A task file, or a folder of them."""


def plan_benchmarks(names: Sequence[str]) -> tuple[Benchmark, ...]:
    """What `--eval_dataset` names. A name that is not ours is taken for one of the harness, which knows thousands.

    Raises SwiftError for files that are not there and for our names without a task, all together.
    """
    errors: list[SwiftError] = []
    benchmarks: dict[str, Benchmark] = {}
    for name in (name for name in names if name != NONE):
        try:
            benchmark = _benchmark(name)
        except SwiftError as error:
            errors.append(error)
            continue
        if benchmarks.setdefault(benchmark.name, benchmark) != benchmark:
            errors.append(SwiftError(f"two benchmarks are called {benchmark.name}", where=f"--eval_dataset {name}"))
    raise_together(errors)
    return tuple(benchmarks.values())


def _benchmark(name: str) -> Benchmark:
    path = Path(name).expanduser()
    if path.suffix in TASK_FILES or os.sep in name or path.is_dir():
        if not path.exists():
            raise SwiftError(f"there is no task {name}", where="--eval_dataset", next=nearby(path))
        if path.is_file() and path.suffix not in TASK_FILES:
            raise SwiftError(
                f"{name} is no task file (.yaml)", where="--eval_dataset", next="own questions: --custom_eval_config"
            )
        return Benchmark(name=path.resolve().stem, path=path)
    tasks, nearest = ({ours.casefold(): (ours, task) for ours, task in names.items()} for names in benchmark_names())
    if name.casefold() in nearest:
        ours, task = nearest[name.casefold()]
        raise SwiftError(
            f"lm-evaluation-harness has no task with the questions of {ours}",
            where=f"--eval_dataset {name}",
            next=f"the nearest is {task}; or let another harness ask `swift deploy`",
        )
    ours, task = tasks.get(name.casefold(), (name, name))
    return Benchmark(name=ours, task=task)
