"""A studio in an empty folder, and a client that asks it as a page of its own would."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the page is served with fastapi")

from fastapi.testclient import TestClient

from swift.web.app import create_app
from swift.web.paths import AllowedPaths
from swift.web.security import Guard
from swift.web.studio import Studio


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    monkeypatch.chdir(tmp_path)
    studio = Studio(tmp_path, tmp_path / "output", AllowedPaths([tmp_path]), "en", grace=1.0)
    yield studio
    for job in studio.jobs.open():
        studio.jobs.kill(job)
    until(lambda: studio.jobs.reap() == 0, 20)


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    app = Guard(create_app(studio), token=None, host="127.0.0.1")
    with TestClient(app, base_url="http://127.0.0.1:7860", headers={"x-swift": "1"}) as client:  # type: ignore[arg-type]
        yield client


def until(true: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something to be so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)
