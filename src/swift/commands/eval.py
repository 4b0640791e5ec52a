"""`swift eval`: ask a model or a server questions, and say how well it answers."""

from __future__ import annotations

from pathlib import Path

from swift.params.args import Args


def run(args: Args) -> int:
    """As `evaluated`. -> exit code."""
    evaluated(args)
    return 0


def evaluated(args: Args) -> Path:
    """Plan, read the questions, load the weights last, ask, report. -> the folder of the report."""
    from swift.catalog import load_catalog
    from swift.core.log import log
    from swift.core.optional_imports import need
    from swift.core.probe import probe
    from swift.exporting.merge_first import with_merged
    from swift.models.gguf.unpack import with_unpacked
    from swift.params.groups import Data, Evaluate, Model
    from swift.plan.evaluation import plan_eval
    from swift.plan.infer import plan_infer

    catalog = load_catalog(args[Model].custom_register_path, args[Data].custom_dataset_info)
    infer = None
    if not args[Evaluate].eval_url:
        machine = probe()
        args = with_merged(with_unpacked(args), catalog, machine)
        infer = plan_infer(args, catalog, machine, answers_rows=False)
    plan = plan_eval(args, infer)
    if plan.benchmarks:
        need("lm_eval", extra="eval", why="--eval_dataset")
    log.info("plan\n%s", plan.summary())

    from swift.evaluation.run import evaluate

    return evaluate(plan, args, catalog)
