"""One function a command. Its keywords are the command's flags; mistakes raise SwiftError, as do failed checks."""

from __future__ import annotations

import json
import shlex
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift.api.arguments import ConfigFile, arguments, faults_told, require_one_process
from swift.api.results import Endpoint, Evaluation, Run
from swift.core.errors import SwiftError

if TYPE_CHECKING:
    from swift.checking.verdict import Verdict
    from swift.serving.server import Server

TICK = 0.2
"""Seconds between two looks at a server that is being started, so that Ctrl-C is heard."""


_TRAINING = threading.Lock()
"""Held by the call that trains."""


def sft(config: ConfigFile = None, **flags: Any) -> Run:
    """Fine-tune, as `swift sft`."""
    return _train("sft", config, flags)


def pt(config: ConfigFile = None, **flags: Any) -> Run:
    """Continue pre-training, as `swift pt`."""
    return _train("pt", config, flags)


def rlhf(config: ConfigFile = None, **flags: Any) -> Run:
    """Align, as `swift rlhf`; `rlhf_type` says how."""
    return _train("rlhf", config, flags)


@faults_told()
def check(
    config: ConfigFile = None,
    *,
    command: str | None = None,
    result_path: str | PathLike[str] | None = None,
    **flags: Any,
) -> Verdict:
    """Whether a training computes what it should, as `swift check`.

    `command` is that of the training: sft, pt, rlhf, dpo, … rm; None means rlhf where `rlhf_type` is given, else sft.
    `result_path` is a file for the verdict as JSON; None writes none.
    -> the verdict: `failed`, `results` and `text()`. A check that fails raises nothing.
    """
    from swift.checking.checks import verdict_of
    from swift.checking.subject import planned_of
    from swift.commands.check import written_verdict
    from swift.params.commands import SHORT, TRAINING
    from swift.params.form import given_line

    if command == "rm":  # which has no short command
        command, flags = "rlhf", {"rlhf_type": "rm", **flags}
    if command not in (None, *TRAINING, *SHORT):
        raise SwiftError(f"`{command}` is no training", where="command", next=", ".join((*TRAINING, *SHORT, "rm")))
    name = command or ("rlhf" if flags.get("rlhf_type") is not None else "sft")
    require_one_process(name)
    args = arguments(name, config, flags)
    with _alone():
        planned, words = planned_of(args), shlex.split(given_line(args))[1:]
        return verdict_of(planned, words) if result_path is None else written_verdict(planned, words, Path(result_path))


@faults_told()
def infer(config: ConfigFile = None, **flags: Any) -> list[dict[str, Any]]:
    """Answer the rows of `val_dataset`, as `swift infer`. -> a record for each row, in order.

    For single questions `swift.load` keeps a model in memory.
    """
    from swift.commands.infer import answered
    from swift.params.groups import Infer

    with tempfile.TemporaryDirectory(prefix="swift-infer-") as scratch:
        args = arguments("infer", config, {"eval_human": False, **flags})
        if not args[Infer].save_result:
            args = args.with_values(save_result=True, result_dir=scratch)
        path = answered(args)
        assert path is not None  # there are rows, and they are kept
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@faults_told()
def merge(config: ConfigFile = None, **flags: Any) -> Path:
    """Fold the adapter of `ckpt_dir` into its model, as `swift merge-lora`. -> the folder of the merged model."""
    from swift.commands.merge_lora import merged

    return merged(arguments("merge-lora", config, flags))


@faults_told()
def export(config: ConfigFile = None, **flags: Any) -> Path:
    """Merge, quantize, convert or push, as `swift export`. -> the last file or folder that was written."""
    from swift.commands.export import exported

    return exported(arguments("export", config, flags))


@faults_told()
def evaluate(config: ConfigFile = None, **flags: Any) -> Evaluation:
    """Measure a model or a server, as `swift eval`."""
    from swift.commands.eval import evaluated

    return Evaluation(evaluated(arguments("eval", config, flags)))


@contextmanager
def deploy(config: ConfigFile = None, **flags: Any) -> Iterator[Endpoint]:
    """Serve the OpenAI API while the block runs, as `swift deploy`. `port=0` takes a free one.

    Answers under way are finished at the end of the block. Raises SwiftError when the model cannot be served.
    """
    from swift.commands.deploy import server

    args = arguments("deploy", config, flags)
    addresses: list[Endpoint] = []
    failures: list[BaseException] = []
    settled = threading.Event()

    def ready(started: Server, port: int) -> None:
        plan = started.service.plan
        scheme = "https" if plan.ssl_certfile else "http"
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(plan.host, plan.host)
        addresses.append(Endpoint(f"{scheme}://{host}:{port}/v1", started.service.model_names))
        settled.set()

    with ExitStack() as stack:
        with faults_told():
            started = stack.enter_context(server(args, ready))

        def answer() -> None:
            try:
                started.answer()
            except BaseException as error:  # raised again in the thread of the caller
                failures.append(error)
            finally:
                settled.set()

        thread = threading.Thread(target=answer, name="swift-deploy", daemon=True)
        thread.start()
        try:
            while not settled.wait(TICK):
                pass
            if addresses:
                yield addresses[0]
        finally:
            started.stop()
            thread.join()
    if failures:
        with faults_told():
            raise failures[0]
    if not addresses:
        raise SwiftError("the server ended before its model was loaded")


@faults_told()
def _train(command: str, config: ConfigFile, flags: dict[str, Any]) -> Run:
    from swift.commands.sft import trained

    require_one_process(command)
    args = arguments(command, config, flags)
    try:
        with _alone():
            folder, _ = trained(args)
    except SystemExit as end:  # another process of the run has told why
        raise SwiftError(f"the run ended with exit code {end.code}: another of its processes failed") from end
    return Run(folder)


@contextmanager
def _alone() -> Iterator[None]:
    """Train in one thread at a time. Raises SwiftError where another one trains."""
    if not _TRAINING.acquire(blocking=False):
        raise SwiftError(
            "another call trains in this process",
            why="two would draw from the same random numbers, and neither could be repeated",
            next="train one after the other, or each in a process of its own",
        )
    try:
        yield
    finally:
        _TRAINING.release()
