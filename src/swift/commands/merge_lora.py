"""`swift merge-lora`: fold an adapter into its model, and check that nothing changed."""

from __future__ import annotations

from pathlib import Path

from swift.params.args import Args


def run(args: Args) -> int:
    """As `merged`. -> exit code."""
    merged(args)
    return 0


def merged(args: Args) -> Path:
    """Plan, merge, verify, and say how to use the result. -> the folder of the merged model."""
    from swift.catalog import load_catalog
    from swift.core.log import log
    from swift.core.probe import probe
    from swift.core.quick_imports import quick_imports
    from swift.params.groups import Data, Model
    from swift.plan.merge import plan_merge
    from swift.plan.reward_model import how_to_try

    plan = plan_merge(args, load_catalog(args[Model].custom_register_path, args[Data].custom_dataset_info), probe())
    log.info(plan.summary())

    with quick_imports():
        from swift.exporting.merge import merge

    folder = merge(plan)
    log.info("try it: %s", how_to_try(folder))
    return folder
