"""The result file on a disk that fills up."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from swift.core.errors import SwiftError
from swift.inference.result_file import finish, open_results


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_whole_rows_and_the_run_goes_on(tmp_path: Path) -> None:
    row = {"response": "é" * 8000}
    with (
        pytest.raises(SwiftError, match="could not be written") as error,
        open_results(tmp_path, "run", datetime.now()) as results,
        largest_file(70_000),
    ):
        for _ in range(9):
            results.write(row)
    assert error.value.next and "same command" in error.value.next
    (path,) = tmp_path.glob("*.jsonl")
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == [row] * 4
    with open_results(tmp_path, "run", datetime.now()) as results:
        assert (results.path, results.done) == (path, 4)


def test_runs_of_the_same_rows_at_the_same_time_get_files_of_their_own(tmp_path: Path) -> None:
    now = datetime.now()
    with (
        open_results(tmp_path, "run", now) as first,
        open_results(tmp_path, "run", now) as second,
        open_results(tmp_path, None, now) as chat,
    ):
        for results, text in ((first, "a"), (second, "b"), (chat, "c"), (first, "d")):
            results.write({"response": text})
        assert [[row["response"] for row in results.rows()] for results in (first, second, chat)] == [
            ["a", "d"],
            ["b"],
            ["c"],
        ]
        finish(second)
    with open_results(tmp_path, "run", now) as again:
        assert (again.path, again.done) == (first.path, 2)
