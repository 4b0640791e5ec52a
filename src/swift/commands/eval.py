"""`swift eval`: ask a model or a server questions, and say how well it answers."""

from __future__ import annotations

from swift.params.args import Args


def run(args: Args) -> int:
    """Plan, read the questions, load the weights last, ask, report. -> exit code."""
    from swift.catalog import load_catalog
    from swift.core.log import log
    from swift.core.probe import probe
    from swift.export.merge_first import with_merged
    from swift.params.groups import Data, Evaluate, Model
    from swift.plan.evaluation import plan_eval
    from swift.plan.infer import plan_infer

    catalog = load_catalog(args[Model].custom_register_path, args[Data].custom_dataset_info)
    infer = None
    if not args[Evaluate].eval_url:
        machine = probe()
        args = with_merged(args, catalog, machine)
        infer = plan_infer(args, catalog, machine, answers_rows=False)
    plan = plan_eval(args, infer)
    log.info("plan\n%s", plan.summary())

    from datetime import datetime

    from swift.engines.factory import prepare
    from swift.evaluation.answerers import Answerer, LocalAnswerer, RemoteAnswerer
    from swift.evaluation.ask import ask, tasks_of
    from swift.evaluation.compare import compare
    from swift.evaluation.contamination import seen_in_training
    from swift.evaluation.questions import read_suites
    from swift.evaluation.report import rows_of, table, write_report
    from swift.evaluation.run_folder import answered, new_run, read_records

    subsets = read_suites(plan.suites, plan.rows, plan.few_shot)
    log.info("%d questions in %d subsets", sum(len(subset.questions) for subset in subsets), len(subsets))
    answerer: Answerer
    if infer is not None:
        answerer = LocalAnswerer(plan, infer, prepare(infer, catalog))
    else:
        assert plan.remote is not None
        answerer = RemoteAnswerer(plan, plan.remote)
    tasks = tasks_of(subsets, answerer)
    known = answered(plan.output) if plan.use_cache else {}
    with new_run(plan.output, datetime.now()) as folder:
        ask(tasks, answerer, known, folder, plan.concurrent)
    records = read_records(folder.path)
    rows = rows_of(records, answerer.scores[0])
    other = compare(records, plan.compare) if plan.compare else None
    checkpoint = infer.checkpoint if infer is not None else None
    seen = seen_in_training(checkpoint, args, catalog, subsets) if checkpoint else None
    write_report(folder.path, plan.facts(), rows, records, other, seen)
    print(table(rows))
    for line in other.lines() if other else []:
        print(line)
    if seen:
        first = seen[0]
        log.warning("questions that stand in the training rows: %d (%s in %s)", len(seen), first.question, first.row)
    log.info("report: %s and report.json, each question in questions.jsonl", folder.path / "report.html")
    return 0
