"""Runs that are killed, told to stop, or meet a full disk: nothing that was complete is lost."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from swift.core.transaction import fault
from swift.training import checkpoints
from training.process import finished, start, wait_until

STEPS = 12


Words = Callable[..., list[str]]


@pytest.fixture(scope="module")
def words(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Words:
    rows = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows.write_text("".join(json.dumps({"query": f"Say {i}", "response": f"{i} it is"}) + "\n" for i in range(40)))

    def make(run: Path, *more: str) -> list[str]:
        flags = {
            "model_id_or_path": tiny_llama_dir,
            "dataset": rows,
            "output_dir": run,
            "add_output_dir_suffix": "false",
            "max_steps": STEPS,
            "batch_size": 2,
            "gradient_accumulation_steps": 1,
            "save_steps": 3,
            "eval_steps": 6,
            "logging_steps": 1,
            "learning_rate": "1e-3",
            "report_to": "none",
        }
        return ["sft", *(word for name, value in flags.items() for word in (f"--{name}", str(value))), *more]

    return make


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, words: Words) -> Path:
    """A run that nobody disturbed. Do not write to it."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert finished(start(words(run), run.with_name("log"))) == 0
    return run


@pytest.fixture
def whole(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of the undisturbed run."""
    return shutil.copytree(undisturbed, tmp_path / "whole")


def losses(run: Path) -> dict[str, float]:
    """The loss of each step; of a step that was done twice, the second."""
    events = [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]
    return {event["global_step/max_steps"]: event["loss"] for event in events if "loss" in event}


def adapter(run: Path) -> bytes:
    return (run / f"checkpoint-{STEPS}" / "adapter_model.safetensors").read_bytes()


def test_killed_at_any_moment_and_resumed_is_the_same_run(whole: Path, tmp_path: Path, words: Words) -> None:
    rng = random.Random(7)
    run = tmp_path / "killed"
    for attempt in range(4):
        output = tmp_path / f"killed-{attempt}.log"
        process = start(words(run, "--resume_from_checkpoint", "auto"), output)
        seen = len(losses(run)) if (run / "logging.jsonl").is_file() else 0

        def went_on(before: int = seen) -> bool:
            return (run / "logging.jsonl").is_file() and len(losses(run)) > before

        wait_until(went_on, process)
        time.sleep(rng.uniform(0, 0.4))
        process.kill()
        process.join()
        whole_ones = [path for path in checkpoints.checkpoints(run) if fault(path) is None]
        assert whole_ones == checkpoints.checkpoints(run), "a checkpoint under its own name is complete"
    assert finished(start(words(run, "--resume_from_checkpoint", "auto"), tmp_path / "last.log")) == 0
    assert losses(run) == losses(whole)
    assert adapter(run) == adapter(whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_how_to_go_on(
    number: signal.Signals, code: int, whole: Path, tmp_path: Path, words: Words
) -> None:
    run, output = tmp_path / "stopped", tmp_path / "stopped.log"
    process = start(words(run), output)
    wait_until(lambda: (run / "logging.jsonl").is_file() and len(losses(run)) >= 4, process)
    assert process.pid is not None
    os.kill(process.pid, number)
    assert finished(process) == code
    last = checkpoints.checkpoints(run)[-1]
    assert fault(last) is None
    command = next(line for line in output.read_text().splitlines() if "--resume_from_checkpoint" in line)
    assert str(last) in command
    if number == signal.SIGINT:
        return
    again = words(run, "--resume_from_checkpoint", str(last))
    assert finished(start(again, tmp_path / "again.log")) == 0
    assert losses(run) == losses(whole)
    assert adapter(run) == adapter(whole)


def test_a_signal_to_the_whole_group_saves_too(tmp_path: Path, words: Words) -> None:
    """As `docker stop` and schedulers send it: the data workers must not die before the run has saved."""
    run, output = tmp_path / "group", tmp_path / "group.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "swift", *words(run, "--dataloader_num_workers", "2", "--max_steps", "500")],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            end = time.monotonic() + 120
            while not ((run / "logging.jsonl").is_file() and len(losses(run)) >= 2):
                assert process.poll() is None and time.monotonic() < end, output.read_text()
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGTERM)
            assert process.wait(120) == 75, output.read_text()
        finally:
            process.kill()
            process.wait()
    assert fault(checkpoints.checkpoints(run)[-1]) is None


@pytest.mark.slow
def test_a_signal_does_not_wait_for_the_evaluation(tmp_path: Path, words: Words) -> None:
    validation = tmp_path / "validation.jsonl"
    validation.write_text((json.dumps({"query": "Say", "response": "it " * 200}) + "\n") * 20_000)
    run, output = tmp_path / "stopped", tmp_path / "stopped.log"
    more = ["--val_dataset", str(validation), "--save_steps", "100", "--lazy_tokenize", "true"]
    process = start(words(run, *more), output)
    wait_until(lambda: (run / "logging.jsonl").is_file() and len(losses(run)) >= 6, process)
    time.sleep(0.5)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    assert finished(process) == 75
    assert [path.name for path in checkpoints.checkpoints(run)] == ["checkpoint-6"]
    assert "the evaluation after step 6 is left out" in output.read_text()


def test_a_half_written_and_a_damaged_checkpoint_are_named_and_skipped(
    whole: Path, tmp_path: Path, words: Words
) -> None:
    shutil.copytree(whole / "checkpoint-12", whole / ".tmp-checkpoint-15")
    weights = whole / "checkpoint-12" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    output = tmp_path / "auto.log"
    assert finished(start(words(whole, "--resume_from_checkpoint", "auto"), output)) == 0
    given = output.read_text()
    assert ".tmp-checkpoint-15" in given
    assert "checkpoint-12: adapter_model.safetensors has" in given
    assert "going on from" in given
    assert fault(whole / "checkpoint-12") is None

    weights.write_bytes(weights.read_bytes()[:-10])
    output = tmp_path / "named.log"
    words_ = words(whole, "--resume_from_checkpoint", str(whole / "checkpoint-12"))
    assert finished(start(words_, output)) == 2
    assert "is damaged" in output.read_text()


def test_a_finished_run_has_nothing_left(whole: Path, tmp_path: Path, words: Words) -> None:
    output = tmp_path / "done.log"
    assert finished(start(words(whole, "--resume_from_checkpoint", "auto"), output)) == 0
    assert f"nothing left to train: {STEPS}/{STEPS}" in output.read_text()


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, words: Words) -> None:
    run, output = tmp_path / "full", tmp_path / "full.log"
    process = start(words(run), output)
    wait_until(lambda: (run / "checkpoint-3").is_dir(), process)
    assert process.pid is not None
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
    assert finished(process) == 2
    given = output.read_text()
    assert "could not be written" in given
    kept = checkpoints.checkpoints(run)
    assert kept
    assert all(fault(path) is None for path in kept)
    assert str(kept[-1]) in given
