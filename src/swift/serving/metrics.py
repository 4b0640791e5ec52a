"""Numbers for Prometheus and for the statistics line of the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_PER_TOKEN = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)


@dataclass
class Interval:
    """What happened since the last statistics line."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    samples: int = 0
    since: float = 0.0


class Metrics:
    """Counters and histograms of one server, in a registry of their own so that two servers can live in one process."""

    def __init__(self, gauges: Callable[[], dict[str, float]]):
        self.registry = CollectorRegistry()
        self.registry.register(_Gauges(gauges))
        self.requests = Counter(
            "swift_requests", "Requests by route and status.", ("route", "status"), registry=self.registry
        )
        self.prompt_tokens = Counter("swift_prompt_tokens", "Tokens of prompts.", registry=self.registry)
        self.cached_tokens = Counter(
            "swift_cached_prompt_tokens", "Prompt tokens whose cache was reused.", registry=self.registry
        )
        self.generated_tokens = Counter("swift_generated_tokens", "Tokens of answers.", registry=self.registry)
        self.finished = Counter("swift_answers", "Answers by how they ended.", ("reason",), registry=self.registry)
        self.first_token = self._histogram("time_to_first_token", "Seconds to the first token.", _SECONDS)
        self.per_token = self._histogram("time_per_output_token", "Seconds a token after the first.", _PER_TOKEN)
        self.duration = self._histogram("request_duration", "Seconds from request to the end of its answer.", _SECONDS)
        self.interval = Interval(since=time.monotonic())

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"swift_{name}_seconds", text, buckets=buckets, registry=self.registry)

    def answered(self, prompt_tokens: int, generated_tokens: int, cached_tokens: int) -> None:
        """Count one request whose answer ended, whole or not."""
        self.prompt_tokens.inc(prompt_tokens)
        self.cached_tokens.inc(cached_tokens)
        self.generated_tokens.inc(generated_tokens)
        self.interval.prompt_tokens += prompt_tokens
        self.interval.generated_tokens += generated_tokens
        self.interval.samples += 1

    def statistics(self) -> dict[str, float] | None:
        """The numbers of the interval that ends now, named as in the 2.5 release; None when nothing ended in it."""
        now = time.monotonic()
        done, self.interval = self.interval, Interval(since=now)
        if not done.samples:
            return None
        runtime = max(now - done.since, 1e-9)
        return {
            "num_prompt_tokens": done.prompt_tokens,
            "num_generated_tokens": done.generated_tokens,
            "num_samples": done.samples,
            "runtime": round(runtime, 3),
            "samples/s": round(done.samples / runtime, 3),
            "tokens/s": round(done.generated_tokens / runtime, 3),
        }

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _Gauges(Collector):
    """Reads the engine's own gauges whenever they are asked for."""

    def __init__(self, read: Callable[[], dict[str, float]]):
        self._read = read

    def collect(self) -> Iterable[GaugeMetricFamily]:
        texts = {
            "running": "Sequences that are being generated.",
            "waiting": "Sequences that wait for a place in the batch.",
            "kv_used": "Share of the key-value cache in use, 0 to 1.",
            "in_flight": "Answers under way, queued ones included.",
        }
        for name, value in self._read().items():
            yield GaugeMetricFamily(f"swift_{name}", texts.get(name, f"The engine's {name}."), value=value)
