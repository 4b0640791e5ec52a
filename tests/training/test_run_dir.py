"""A folder holds one run, and one process writes into it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from swift.core.errors import SwiftError
from swift.training import checkpoints, run_dir
from swift.training.run_dir import LOCK, LOG, claimed, forget_after, own_folder, run_folder
from training.kit import tiny_plan
from training.process import CONTEXT

NOW = datetime(2026, 1, 2, 3, 4, 5)


def checkpoint(run: Path, step: int) -> Path:
    folder = run / f"checkpoint-{step}"
    with checkpoints.writing(folder) as scratch:
        (scratch / "optimizer.pt").write_text("x")
    return folder


def test_a_folder_with_another_run_is_refused(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path / "run", add_output_dir_suffix=False)
    assert run_folder(plan, None, NOW) == tmp_path / "run"
    checkpoint(tmp_path / "run", 9)
    last = checkpoint(tmp_path / "run", 10)
    with pytest.raises(SwiftError, match="holds another run, up to checkpoint-10") as raised:
        run_folder(plan, None, NOW)
    assert f"--resume_from_checkpoint {last}" in str(raised.value)
    assert run_folder(plan, last, NOW) == tmp_path / "run"
    with pytest.raises(SwiftError, match="holds later checkpoints than checkpoint-9, up to checkpoint-10"):
        run_folder(plan, tmp_path / "run" / "checkpoint-9", NOW)
    (last / "optimizer.pt").write_text("damaged")
    assert run_folder(plan, tmp_path / "run" / "checkpoint-9", NOW) == tmp_path / "run"

    elsewhere = checkpoint(tmp_path / "elsewhere", 3)
    with pytest.raises(SwiftError, match="holds another run"):
        run_folder(plan, elsewhere, NOW)
    with pytest.raises(SwiftError, match="holds another run"):
        run_folder(tiny_plan(tmp_path / "run", add_output_dir_suffix=False, resume_only_model=True), last, NOW)


def test_a_log_is_a_run_too_but_for_one_that_begins_again(tmp_path: Path) -> None:
    (tmp_path / "logging.jsonl").write_text("{}\n")
    with pytest.raises(SwiftError, match="holds the log of another run"):
        run_folder(tiny_plan(tmp_path, add_output_dir_suffix=False), None, NOW)
    assert run_folder(tiny_plan(tmp_path, add_output_dir_suffix=False, resume="auto"), None, NOW) == tmp_path


def test_going_back_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path)
    first = run_folder(plan, None, NOW)
    assert first == tmp_path / "tiny" / "v0-20260102-030405"
    early, late = checkpoint(first, 2), checkpoint(first, 4)
    assert run_folder(plan, late, NOW) == first
    assert run_folder(plan, early, NOW) == tmp_path / "tiny" / "v1-20260102-030405"


def test_of_two_runs_of_the_same_second_one_takes_the_next_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one makes its folder when this one has just looked."""

    def looked(*given: Any) -> Path:
        folder = run_folder(*given)
        (tmp_path / "tiny" / "v0-20260102-030405").mkdir(parents=True, exist_ok=True)
        return folder

    monkeypatch.setattr(run_dir, "run_folder", looked)
    with own_folder(tiny_plan(tmp_path), None, NOW) as folder, claimed(folder):
        assert folder == tmp_path / "tiny" / "v1-20260102-030405"
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["v0-20260102-030405"], "the other's stays"


def _hold(folder: Path, ready: object, done: object) -> None:
    with claimed(folder):
        ready.set()  # type: ignore[attr-defined]
        done.wait(60)  # type: ignore[attr-defined]


def test_two_runs_at_once_are_kept_apart(tmp_path: Path) -> None:
    ready, done = CONTEXT.Event(), CONTEXT.Event()
    other = CONTEXT.Process(target=_hold, args=(tmp_path / "run", ready, done))
    other.start()
    assert ready.wait(60)
    with pytest.raises(SwiftError, match="another run is writing into") as raised, claimed(tmp_path / "run"):
        pass
    assert f"process {other.pid} on" in str(raised.value)
    assert (tmp_path / "run" / LOCK).is_file(), "the other's lock stays"
    other.kill()
    other.join()
    with claimed(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]


def test_a_folder_that_stayed_empty_is_not_left(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), claimed(tmp_path / "output" / "model" / "v0"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_steps_that_are_done_again_leave_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [f'{{"loss": {step}.0, "global_step/max_steps": "{step}/4"}}\n' for step in (1, 2, 2, 3, 4)]
    told = '{"eval_after": {}}\n'
    (tmp_path / LOG).write_text("".join([*lines[:3], told, *lines[3:], '{"global_step": 4}\n', '{"loss": 5']))
    forget_after(tmp_path, 2)
    assert (tmp_path / LOG).read_text() == "".join([*lines[:3], told])
    assert "lines behind step 2 are left out (4)" in caplog.text
    caplog.clear()
    forget_after(tmp_path, 2)
    assert not caplog.text
