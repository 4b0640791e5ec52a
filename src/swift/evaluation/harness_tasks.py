"""The tasks of lm-evaluation-harness that benchmarks name, with their rows, as they are to be asked."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lm_eval.api.group import Group  # pyright: ignore[reportMissingImports]  # an extra
from lm_eval.api.task import Task  # pyright: ignore[reportMissingImports]  # as above
from lm_eval.defaults import (  # pyright: ignore[reportMissingImports]  # as above
    DEFAULT_OTHER_SEED,
    DEFAULT_RANDOM_SEED,
)
from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]  # as above

from swift.core.did_you_mean import suggestion
from swift.core.errors import SwiftError, raise_together
from swift.core.log import log
from swift.plan.benchmarks import Benchmark
from swift.plan.evaluation import EvalPlan

GROUP = re.compile(r"^group\s*:\s*[\"']?([^\"'\s#]+)", re.MULTILINE)
SAYS_DEFAULTS = logging.getLogger("lm_eval.api.task")
"""Warns of every default that a task relies on."""
MEDIA = {"doc_to_image": "images", "doc_to_audio": "audio"}


@dataclass(frozen=True)
class HarnessTasks:
    """What is asked: tasks and groups by the harness's names, and the benchmark that each belongs to."""

    tasks: Mapping[str, Task]
    groups: Mapping[str, Group]
    suites: Mapping[str, str]
    """The benchmark's name by the name of a task or group."""
    rows: Mapping[str, list[int]]
    """Which rows of each task are asked."""


def load_tasks(plan: EvalPlan) -> HarnessTasks:
    """Load every task with its data. Raises SwiftError for one that is not there, or cannot be asked."""
    SAYS_DEFAULTS.setLevel(logging.ERROR)
    random.seed(DEFAULT_RANDOM_SEED)  # tasks shuffle while they are read; these are the harness's own seeds
    np.random.seed(DEFAULT_OTHER_SEED)
    named = TaskManager() if any(benchmark.task for benchmark in plan.benchmarks) else None
    tasks: dict[str, Task] = {}
    groups: dict[str, Group] = {}
    suites: dict[str, str] = {}
    for benchmark in plan.benchmarks:
        own_tasks, own_groups = _load(benchmark, named)
        for name in (*own_tasks, *own_groups):
            if name in suites:
                raise SwiftError(
                    f"{suites[name]} and {benchmark.name} both have the task {name}",
                    where="--eval_dataset",
                    next="leave one of the two out",
                )
            suites[name] = benchmark.name
        tasks |= own_tasks
        groups |= own_groups
    raise_together(_refused(tasks))
    rows = {}
    for name, task in tasks.items():
        _set_shots(task, plan.few_shot)
        with faults_of(name):
            rows[name] = list(range(len(task.eval_docs)))[plan.rows]
        if not rows[name]:
            log.info("%s has no question in the slice of --eval_limit", name)
    asked = {name: task for name, task in tasks.items() if rows[name]}
    if not asked:
        raise SwiftError("no question is chosen", where="--eval_limit")
    return HarnessTasks(asked, groups, suites, rows)


@contextmanager
def faults_of(what: str) -> Iterator[None]:
    """Tasks are code and data of others, which can fail in any way: raises SwiftError for all of them."""
    try:
        yield
    except SwiftError:
        raise
    except ModuleNotFoundError as error:
        raise SwiftError(
            f"{what} needs the package `{error.name}`, which is not installed",
            where="--eval_dataset",
            next=f"pip install {error.name}; the answers so far are kept for --eval_use_cache true",
        ) from error
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise SwiftError(
            f"{what} cannot be asked",
            where="--eval_dataset",
            why=reason[:300],
            next="its data come from the hub, or from paths as seen from the working directory; --debug shows more",
        ) from error


def _load(benchmark: Benchmark, named: TaskManager | None) -> tuple[dict[str, Task], dict[str, Group]]:
    """The tasks and groups of one benchmark."""
    if benchmark.path is not None:
        with faults_of(str(benchmark.path)):
            return _of_files(benchmark.path)
    assert named is not None and benchmark.task is not None
    if benchmark.task not in named.task_index:
        raise SwiftError(
            f"lm-evaluation-harness has no task {benchmark.task}",
            where="--eval_dataset",
            next=suggestion(benchmark.task, named.all_tasks) or "a task file of your own does as well (task.yaml)",
        )
    with faults_of(benchmark.name):
        loaded = named.load([benchmark.task])
        return loaded["tasks"], loaded["groups"]


def _of_files(path: Path) -> tuple[dict[str, Task], dict[str, Group]]:
    """The tasks of one file, or of every file in a folder."""
    if path.is_file():
        group = GROUP.search(path.read_text("utf-8"))
        if group is None:
            loaded = TaskManager(include_defaults=False).load([str(path)])
        else:  # its tasks lie beside it
            loaded = TaskManager(include_defaults=False, include_path=path.parent).load([group[1]])
        return loaded["tasks"], loaded["groups"]
    manager = TaskManager(include_defaults=False, include_path=path)
    if not manager.all_subtasks:
        raise SwiftError(f"{path} has no task file (.yaml)", where="--eval_dataset")
    loaded = manager.load([*manager.all_groups]) if manager.all_groups else {"tasks": {}, "groups": {}}
    alone = [name for name in manager.all_subtasks if name not in loaded["tasks"]]
    rest = manager.load(alone) if alone else {"tasks": {}}
    return {**loaded["tasks"], **rest["tasks"]}, loaded["groups"]


def _refused(tasks: Mapping[str, Task]) -> Iterator[SwiftError]:
    """Tasks that are not asked here, in words."""
    for name, task in tasks.items():
        if task.get_config("unsafe_code"):
            yield SwiftError(
                f"{name} runs the code that the model writes, which is not done here",
                where="--eval_dataset",
                next="let lm_eval ask `swift deploy` inside a sandbox: --model local-completions",
            )
        for field, media in MEDIA.items():
            if task.get_config(field):
                yield SwiftError(f"{name} shows {media}, which `swift eval` does not yet", where="--eval_dataset")


def _set_shots(task: Task, shots: int | None) -> None:
    """How many solved questions stand before each, as the harness's own command settles it."""
    own = task.get_config("num_fewshot")
    if shots is not None and own == 0:
        log.info(
            "%s is made for no solved questions before it: --eval_few_shot %d does not count", task.task_name, shots
        )
    elif shots is not None or own is None:
        task.set_config(key="num_fewshot", value=shots or 0)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
