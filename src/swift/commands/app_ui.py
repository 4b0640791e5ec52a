"""`swift app-ui`: chat with a model on a web page."""

from __future__ import annotations

from swift.params.args import Args


def run(args: Args) -> int:
    """Plan, load, serve the page until Ctrl-C. -> exit code."""
    from swift.catalog import load_catalog
    from swift.core.listening import bind
    from swift.core.log import log
    from swift.core.optional_imports import need
    from swift.core.probe import probe
    from swift.engines.bf16_speedup import bf16_speedup
    from swift.exporting.merge_first import with_merged
    from swift.models.gguf.unpack import with_unpacked
    from swift.params.groups import Data, Model, Page
    from swift.plan.infer import plan_infer, say_greedy, seeds

    need("gradio", extra="ui", why="swift app-ui")
    machine = probe()
    catalog = load_catalog(args[Model].custom_register_path, args[Data].custom_dataset_info)
    args = with_merged(with_unpacked(args), catalog, machine)
    plan = plan_infer(args, catalog, machine, answers_rows=False, bf16_speedup=bf16_speedup)
    log.info("plan\n%s", plan.summary())

    from swift.engines.factory import prepare, start
    from swift.engines.sync_engine import SyncEngine
    from swift.ui.chat_page import ChatPage, serve
    from swift.ui.chat_turn import Controls, Talker

    prepared = prepare(plan, catalog)
    say_greedy(plan.generate, prepared.sampling)
    sampling, page = prepared.sampling, args[Page]
    controls = Controls(
        system=plan.prompt.system or "",
        adapter=plan.engine.default_adapter,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_new_tokens,
    )
    bind(page.host, page.port).close()  # known before the model is loaded
    with SyncEngine(lambda: start(plan, prepared)) as engine:
        drawn = seeds(plan.first_seed)
        talker = Talker(
            engine, prepared.encoder, lambda room: prepared.sampling_of(room, seed=next(drawn)), prepared.encoders
        )
        takes = () if prepared.images is None else prepared.images.kinds
        shown = ChatPage(talker, plan.model.model_type, controls, takes=takes).build()
        serve(shown, page.host, page.port, share=page.share, public_url=page.public_url)
    return 0
