"""vLLM's surroundings: its environment variables, its gauges, and its process, which is to live as long as ours."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

CPU_KV_CACHE = 4
"""GiB."""


def prepare_environment(*, memory_given: bool) -> None:
    """The one place that sets vLLM's environment variables, read as it is imported. What the user has set stays.

    `memory_said` is whether the user wants a share of the memory; otherwise a CPU build gets a KV cache of one size.
    """
    wanted = {
        "VLLM_NO_USAGE_STATS": "1",  # it would report the run to its makers
        "VLLM_LOGGING_LEVEL": "ERROR",  # its warnings are about choices that are made here
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # standard output carries answers
    }
    if _is_cpu_build():
        wanted |= {
            # One process for the model instead of two.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            # "auto" leaves a core to itself and takes every second of the others.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            # This process and vLLM's share the cores: threads that wait awake for each other stand in its way.
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        if not memory_given:
            wanted["VLLM_CPU_KVCACHE_SPACE"] = str(CPU_KV_CACHE)
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


def _is_cpu_build() -> bool:
    for distribution in ("vllm-cpu", "vllm"):
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        return distribution == "vllm-cpu" or version.endswith("+cpu")
    return False


@contextmanager
def interrupts_kept_from_children() -> Iterator[None]:
    """Ctrl-C reaches every process of the terminal; it should stop an answer here, not the model's process.

    A child inherits the blocked signal. multiprocessing starts its tracker with the first child and unblocks the signal
    as it does so, hence the tracker comes first.
    """
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leash(pids: Iterable[int | None]) -> subprocess.Popen[bytes]:
    """A shell that ends the processes `pids` if this one is killed, which vLLM's would outlive with all its memory.

    It waits for the end of its standard input, which comes with the end of this process, however that ends.
    """
    script = 'read -r _; kill -KILL "$@"'
    return subprocess.Popen(["sh", "-c", script, "sh", *map(str, pids)], stdin=subprocess.PIPE, start_new_session=True)


def gauge_writer(gauges: dict[str, float]) -> Any:
    """A stat logger, vLLM's own way to hear from its scheduler, that keeps the last numbers in `gauges`."""
    from vllm.v1.metrics.loggers import StatLoggerBase  # pyright: ignore[reportMissingImports]  # as above

    # The base class is abstract in three methods; only the numbers of a step are of use here.
    class GaugeWriter(StatLoggerBase):
        def __init__(self, vllm_config: Any, engine_index: int = 0):
            pass

        def record(self, scheduler_stats: Any, *_: Any, **__: Any) -> None:
            if scheduler_stats is not None:
                gauges["running"] = float(scheduler_stats.num_running_reqs)
                gauges["waiting"] = float(scheduler_stats.num_waiting_reqs)
                gauges["kv_used"] = float(scheduler_stats.kv_cache_usage)

        def log_engine_initialized(self) -> None:
            pass

    return GaugeWriter
