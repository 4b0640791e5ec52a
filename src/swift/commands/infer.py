"""`swift infer`: chat with a model, or let it answer rows."""

from __future__ import annotations

from pathlib import Path

from swift.params.args import Args


def run(args: Args) -> int:
    """As `answered`. -> exit code."""
    answered(args)
    return 0


def answered(args: Args) -> Path | None:
    """Plan, prepare, load the weights last, then answer. -> the file of the answers to rows, where one is kept."""
    from swift.catalog import load_catalog
    from swift.core.log import log
    from swift.core.probe import probe
    from swift.engines.bf16_speedup import bf16_speedup
    from swift.exporting.merge_first import with_merged
    from swift.inference.result_file import require_room_for_results
    from swift.models.gguf.unpack import with_unpacked
    from swift.params.groups import Data, Infer, Model
    from swift.plan.infer import plan_infer, say_greedy

    machine = probe()
    catalog = load_catalog(args[Model].custom_register_path, args[Data].custom_dataset_info)
    if (folder := args[Infer].result_dir) and args[Infer].save_result:
        require_room_for_results(Path(folder).expanduser())
    args = with_merged(with_unpacked(args), catalog, machine)
    plan = plan_infer(args, catalog, machine, bf16_speedup=bf16_speedup)
    log.info("plan\n%s", plan.summary())

    from dataclasses import replace

    from swift.data.prompt_rows import prompt_rows
    from swift.engines.factory import prepare, start, write_generation_config
    from swift.engines.sync_engine import SyncEngine
    from swift.inference.batch import answer_rows
    from swift.inference.terminal import chat, require_input

    rows = None
    if not plan.rows:
        require_input()
    else:
        rows = prompt_rows(plan.rows.data, as_trained=plan.rows.as_trained)
        rows = rows if plan.rows.sample < 0 else rows[: plan.rows.sample]
        log.info("%d rows to answer", len(rows))
    prepared = prepare(plan, catalog)
    say_greedy(plan.generate, prepared.sampling)
    if plan.save and plan.results is None:
        plan = replace(plan, results=prepared.source / "infer_result")
    if plan.results is not None:
        require_room_for_results(plan.results)
    if plan.overwrite_generation_config:
        write_generation_config(Path(plan.model.adapter or prepared.source), prepared.sampling)
    with SyncEngine(lambda: start(plan, prepared)) as engine:
        if rows is None:
            chat(plan, prepared, engine, one_turn=prepared.one_turn)
            return None
        return answer_rows(plan, prepared, engine, rows)
