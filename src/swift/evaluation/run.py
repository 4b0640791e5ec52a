"""An evaluation from its plan to its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from swift.catalog import Catalog
from swift.core.log import log
from swift.engines.factory import Prepared, prepare
from swift.evaluation.answerers import Answerer, LocalAnswerer, RemoteAnswerer
from swift.evaluation.ask import ask, tasks_of
from swift.evaluation.compare import compare
from swift.evaluation.contamination import Seen, seen_in_training
from swift.evaluation.questions import read_suites
from swift.evaluation.report import Row, rows_of, table, write_report
from swift.evaluation.run_folder import answered, new_run, read_records
from swift.params.args import Args
from swift.plan.evaluation import EvalPlan, RemotePlan
from swift.plan.infer import InferPlan

L = TypeVar("L")
R = TypeVar("R")


def evaluate(plan: EvalPlan, args: Args, catalog: Catalog) -> Path:
    """Ask, and write the report -> the folder of the run. Raises SwiftError, and Interrupted on Ctrl-C."""
    return _own_questions(plan, args, catalog) if plan.suites else _benchmarks(plan, catalog)


def _own_questions(plan: EvalPlan, args: Args, catalog: Catalog) -> Path:
    subsets = read_suites(plan.suites, plan.rows, plan.shots)
    log.info("%d questions in %d subsets", sum(len(subset.questions) for subset in subsets), len(subsets))
    answerer: Answerer = _made_by(LocalAnswerer, RemoteAnswerer, plan, catalog)
    tasks = tasks_of(subsets, answerer)
    known = answered(plan.output) if plan.use_cache else {}
    with new_run(plan.output, datetime.now()) as folder:
        ask(tasks, answerer, known, folder, plan.concurrent)
    score = answerer.scores[0]
    checkpoint = plan.infer.checkpoint if plan.infer is not None else None
    seen = seen_in_training(checkpoint, args, catalog, subsets) if checkpoint else None
    facts = {"choice score": score, "solved questions before each": str(plan.shots)}
    _report(plan, folder.path, facts, rows_of(read_records(folder.path), score), seen)
    return folder.path


def _benchmarks(plan: EvalPlan, catalog: Catalog) -> Path:
    from swift.evaluation.harness import run_tasks  # needs the extra, as do the two below
    from swift.evaluation.harness_answerers import HarnessAnswerer, LocalHarness, RemoteHarness
    from swift.evaluation.harness_tasks import load_tasks

    answerer: HarnessAnswerer = _made_by(LocalHarness, RemoteHarness, plan, catalog)
    tasks = load_tasks(plan)
    log.info("%d questions in %d tasks", sum(map(len, tasks.rows.values())), len(tasks.tasks))
    known = answered(plan.output) if plan.use_cache else {}
    with new_run(plan.output, datetime.now()) as folder:
        rows, facts = run_tasks(tasks, plan, answerer, known, folder)
    _report(plan, folder.path, facts, rows, None)
    return folder.path


def _made_by(
    local: Callable[[EvalPlan, InferPlan, Prepared], L],
    remote: Callable[[EvalPlan, RemotePlan], R],
    plan: EvalPlan,
    catalog: Catalog,
) -> L | R:
    """What answers: a model of this machine, or a server."""
    if plan.infer is not None:
        return local(plan, plan.infer, prepare(plan.infer, catalog))
    assert plan.remote is not None
    return remote(plan, plan.remote)


def _report(
    plan: EvalPlan, folder: Path, facts: Mapping[str, str], rows: Sequence[Row], seen: Sequence[Seen] | None
) -> None:
    records = read_records(folder)
    other = compare(records, plan.compare) if plan.compare else None
    write_report(folder, {**plan.facts(), **facts}, rows, records, other, seen)
    print(table(rows))
    if other is not None:
        print(f"\ncompared with {other.folder}\n{other.table()}")
    if seen:
        first = seen[0]
        log.warning("questions that stand in the training rows: %d (%s in %s)", len(seen), first.question, first.row)
    log.info("report: %s and report.json, each question in questions.jsonl", folder / "report.html")
