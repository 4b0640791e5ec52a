"""`swift sft`: fine-tune a model on your rows."""

from __future__ import annotations

from pathlib import Path

from swift.params.args import Args


def run(args: Args) -> int:
    """As `trained`. -> exit code."""
    trained(args)
    return 0


def trained(args: Args) -> tuple[Path, Path | None]:
    """Plan, encode, load, train, and say how to try the result.

    -> the run's folder and its best checkpoint, None where nothing is trained or saved.
    """
    from contextlib import nullcontext
    from datetime import datetime

    from swift.catalog import load_catalog
    from swift.core.log import log
    from swift.core.probe import probe
    from swift.core.quick_imports import quick_imports
    from swift.params.groups import Data, Model
    from swift.plan.sft import plan_sft
    from swift.plan.unread import say_unread_by_machine

    catalog = load_catalog(args[Model].custom_register_path, args[Data].custom_dataset_info)
    machine = probe()
    plan = plan_sft(args, catalog, machine)
    resume = None
    if plan.train.resume is not None:
        from swift.training.resume import go_on

        args, resume = go_on(args, plan)
        plan = plan_sft(args, catalog, machine)
    say_unread_by_machine(args, machine)
    log.info(plan.summary())
    if plan.eval_after is not None:
        from swift.evaluation.after_training import require_questions

        require_questions(plan.eval_after)

    from swift.training.run_dir import own_folder, run_folder

    if plan.dry_run:
        from swift.training.dry_run import preview

        folder = run_folder(plan.train, resume, datetime.now())
        print(preview(plan, catalog, folder, resume))
        return folder, None

    from swift.training import process_group

    with quick_imports():
        from swift.training.train import run_training

    with process_group.joined(plan.train):
        resume = process_group.told_by_first(resume)
        own = own_folder(plan.train, resume, datetime.now()) if machine.first else nullcontext(plan.train.output_dir)
        with own as folder:
            run_dir = process_group.told_by_first(folder)
            checkpoint = run_training(args, plan, catalog, machine, run_dir, resume)
    if plan.eval_after is not None and checkpoint is None:
        log.info("--eval_after asks nothing: nothing was trained")
    elif plan.eval_after is not None and checkpoint is not None and machine.first:
        from swift.evaluation.after_training import evaluate_after

        evaluate_after(plan.eval_after, checkpoint, run_dir)
    return run_dir, checkpoint
