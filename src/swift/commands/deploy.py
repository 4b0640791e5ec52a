"""`swift deploy`: serve a model over the OpenAI API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from swift.params.args import Args

if TYPE_CHECKING:
    from swift.serving.server import Server


def run(args: Args) -> int:
    """Answer until a signal, with the addresses on the screen from when the model does. -> exit code."""
    import sys

    from swift.serving.banner import greeting

    def ready(server: Server, port: int) -> None:
        service = server.service
        plan = service.plan
        show_key = plan.api_key is not None and sys.stdout.isatty()
        print(greeting(plan, port, service.model_names, show_key=show_key, scores=service.scores), flush=True)

    with server(args, ready) as started:
        started.answer()
    return 0


@contextmanager
def server(args: Args, ready: Callable[[Server, int], None]) -> Iterator[Server]:
    """Plan, and take the port. -> a server that loads and answers when it is told to; then `ready` gets its port."""
    from swift.catalog import load_catalog
    from swift.core.log import log
    from swift.core.optional_imports import need
    from swift.core.probe import probe
    from swift.engines.bf16_speedup import bf16_speedup
    from swift.exporting.merge_first import with_merged
    from swift.models.gguf.unpack import with_unpacked
    from swift.params.groups import Data, Model
    from swift.plan.infer import plan_infer, say_greedy
    from swift.plan.serve import plan_serve
    from swift.plan.unread import say_unread_by_text

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

    from swift.engines.factory import prepare, start
    from swift.serving.server import Server, bind
    from swift.serving.service import Loaded, Service

    def load(loop: asyncio.AbstractEventLoop) -> Loaded:
        prepared = prepare(infer, catalog, scores=True)
        say_greedy(infer.generate, prepared.sampling)
        if prepared.images is None:
            say_unread_by_text(args)
        if infer.engine.backend == "pt":
            # Bound to no event loop, so the weights are loaded without holding up the server's.
            engine = asyncio.run(start(infer, prepared))
        else:
            engine = asyncio.run_coroutine_threadsafe(start(infer, prepared), loop).result()
        sampling, heads = plan.defaults(prepared.sampling), frozenset(prepared.heads)
        return Loaded(engine, prepared.encoder, sampling, heads, prepared.encoders)

    # The port is taken first: a port that is not free must not show only after minutes of loading.
    with bind(plan.host, plan.port) as listener:
        port = listener.getsockname()[1]
        started = Server(Service(plan), listener, load, lambda: ready(started, port))
        yield started
