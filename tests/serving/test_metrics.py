"""Numbers and logs of a server."""

from __future__ import annotations

import logging
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from swift.core.log import log


def test_metrics_count_requests_and_tokens(running, ask) -> None:
    ask("one two three")
    ask("one two", stream=True)
    ask("hi", temperature=-1)
    httpx.get(f"{running.url}/whatever")
    answer = httpx.get(f"{running.url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    route = "/v1/chat/completions"
    assert samples[("swift_requests_total", *sorted((route, "200")))] == 2
    assert samples[("swift_requests_total", *sorted((route, "422")))] == 1
    assert samples[("swift_requests_total", *sorted(("other", "404")))] == 1
    assert samples[("swift_generated_tokens_total",)] == 5
    assert samples[("swift_answers_total", "stop")] == 2
    assert samples[("swift_time_to_first_token_seconds_count",)] == 2
    assert samples[("swift_request_duration_seconds_count",)] == 2
    assert samples[("swift_running",)] == 0 and ("swift_kv_used",) in samples and ("swift_waiting",) in samples


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage() + "\n"


@pytest.fixture
def lines() -> _Lines:
    handler = _Lines()
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


@pytest.mark.parametrize("verbose", [False, True])
def test_prompts_are_logged_only_when_asked_for(start, lines, verbose: bool) -> None:
    running = start(verbose=verbose)
    for text in ("my secret", "a secret that fails"):
        body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "n": 1 if "my" in text else "secret"}
        httpx.post(f"{running.url}/v1/chat/completions", json=body)
    httpx.post(f"{running.url}/v1/completions", json={"model": "tiny", "prompt": "a secret too"})
    assert ("my secret" in lines.text) == verbose
    assert ("secret too" in lines.text) == verbose


def test_statistics_line(start, lines) -> None:
    running = start(log_interval=1)
    httpx.post(f"{running.url}/v1/completions", json={"model": "tiny", "prompt": "one two three"})
    for _ in range(30):
        if "num_samples" in lines.text:
            break
        httpx.get(f"{running.url}/health")
        time.sleep(0.1)
    for name in ("num_prompt_tokens", "num_generated_tokens", "num_samples", "runtime", "samples/s", "tokens/s"):
        assert f"'{name}'" in lines.text


def test_version_and_docs(running) -> None:
    assert httpx.get(f"{running.url}/version").json()["version"]
    assert httpx.get(f"{running.url}/docs").status_code == 200
    paths = httpx.get(f"{running.url}/openapi.json").json()["paths"]
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics", "/version"} <= set(paths)
