"""`swift deploy`: serve a model over the OpenAI API."""

from __future__ import annotations

from swift.params.args import Args


def run(args: Args) -> int:
    """Plan, bind, load beside the server, answer until a signal. -> exit code."""
    from swift.catalog import load_catalog
    from swift.core.log import log
    from swift.core.optional_imports import need
    from swift.core.probe import probe
    from swift.engines.bf16_speedup import bf16_speedup
    from swift.exporting.merge_first import with_merged
    from swift.models.gguf.unpack import with_unpacked
    from swift.params.groups import Data, Model
    from swift.plan.infer import plan_infer
    from swift.plan.serve import plan_serve

    for module in ("fastapi", "uvicorn", "prometheus_client"):
        need(module, extra="serve", why="swift deploy")
    machine = probe()
    catalog = load_catalog(args[Model].custom_register_path, args[Data].custom_dataset_info)
    args = with_merged(with_unpacked(args), catalog, machine)
    infer = plan_infer(args, catalog, machine, answers_rows=False, bf16_speedup=bf16_speedup)
    template = infer.prompt.template_type
    one_turn = template in catalog.templates and catalog.templates.get(template).generation
    plan = plan_serve(args, infer, is_chat=not one_turn)
    log.info("plan\n%s", infer.summary())

    import asyncio
    import sys

    from swift.engines.factory import prepare, start
    from swift.serving.banner import greeting
    from swift.serving.server import Server, bind
    from swift.serving.service import Loaded, Service

    def load(loop: asyncio.AbstractEventLoop) -> Loaded:
        prepared = prepare(infer, catalog, scores=True)
        if infer.engine.backend == "pt":
            # Bound to no event loop, so the weights are loaded without holding up the server's.
            engine = asyncio.run(start(infer, prepared))
        else:
            engine = asyncio.run_coroutine_threadsafe(start(infer, prepared), loop).result()
        return Loaded(engine, prepared.encoder, plan.defaults(prepared.sampling), frozenset(prepared.heads))

    def ready() -> None:
        port = listener.getsockname()[1]
        show_key = plan.api_key is not None and sys.stdout.isatty()
        print(greeting(plan, port, service.model_names, show_key=show_key, scores=service.scores), flush=True)

    service = Service(plan)
    # The port is taken first: a port that is not free must not show only after minutes of loading.
    with bind(plan.host, plan.port) as listener:
        Server(service, listener, load, ready).answer()
    return 0
