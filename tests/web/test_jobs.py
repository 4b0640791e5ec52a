"""Jobs as processes: started, found again, stopped and killed, and nothing else with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from swift.web.job_api import start
from swift.web.jobs import Job, Jobs
from swift.web.queue import Queue, wanted_devices
from swift.web.runner import start_time
from swift.web.studio import Studio
from web.conftest import until

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
print("up", flush=True)
time.sleep(600)
"""


def now(job: Job) -> Job:
    """The job as its folder tells it at this moment."""
    return Job(job.folder)


def python_job(jobs: Jobs, code: str) -> Job:
    """A job that runs a program instead of a command of ours."""
    job = jobs.add(["sft"])
    record = {**job.record, "argv": [sys.executable, "-c", code, "x", "sft"]}
    (job.folder / "argv.json").write_text(json.dumps(record))
    return now(job)


def test_how_a_command_ended_is_known(studio: Studio) -> None:
    good = studio.jobs.add(["sft", "--print_config", "yaml"])
    bad = studio.jobs.add(["sft", "--lora_rank", "0"])
    assert (good.state, good.seconds) == ("queued", 0.0)
    assert studio.jobs.start(good) and studio.jobs.start(bad)
    assert not studio.jobs.start(good), "a second server does not start it again"
    until(lambda: now(good).over and now(bad).over)
    assert now(good).state == "done" and "lora_rank: 8" in now(good).log_tail()
    assert now(bad).state == "failed" and now(bad).exit == {"code": 2, "time": pytest.approx(time.time(), abs=60)}
    assert studio.jobs.remove(now(good)) and studio.jobs.get(good.id) is None


def test_another_server_finds_the_job_and_stops_it_alone(studio: Studio, tmp_path: Path) -> None:
    """A neighbour whose command line holds the same words and paths lives on (2.5 killed it)."""
    words = ["web-ui", "--port", "0", "--output_dir", str(tmp_path / "output")]
    job = studio.jobs.add(words)
    studio.jobs.start(job)
    until(lambda: "http://" in now(job).log_tail())
    neighbour = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", *words, str(job.folder)])
    try:
        later = Jobs(studio.jobs.folder, tmp_path)
        [found] = later.all()
        assert found.state == "running"
        later.stop(found)
        until(lambda: now(job).over)
        assert now(job).state == "stopped" and now(job).exit and now(job).exit["code"] == 0
        assert neighbour.poll() is None
    finally:
        neighbour.kill()
        neighbour.wait()


def test_a_number_that_another_process_has_now_is_not_the_job(studio: Studio) -> None:
    job = studio.jobs.add(["sft"])
    (job.folder / "claim").touch()
    started = start_time(os.getpid())
    assert started is not None
    mark = {"pid": os.getpid(), "started": started + "0"}
    (job.folder / "process.json").write_text(json.dumps({"runner": mark, "command": mark}))
    assert now(job).state == "lost"
    studio.jobs.stop(now(job))
    studio.jobs.kill(now(job))  # or this test would be over


def test_what_does_not_end_is_killed_with_all_it_started(studio: Studio) -> None:
    job = python_job(studio.jobs, STUBBORN)
    studio.jobs.start(job)
    until(lambda: "up" in now(job).log_tail())
    family = [psutil.Process(pid) for pid, _ in now(job).processes]
    family += family[1].children(recursive=True)
    assert len(family) == 3
    queue = Queue(studio.jobs, grace=0.5)
    studio.jobs.stop(now(job))
    assert now(job).state == "stopping"
    until(lambda: queue.advance() or now(job).over)
    assert now(job).state == "stopped"
    until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))


def test_orphans_are_found_by_what_they_inherited(studio: Studio) -> None:
    """Ranks whose launcher was killed: nothing but their environment tells whose they are."""
    job = python_job(studio.jobs, STUBBORN)
    studio.jobs.start(job)
    until(lambda: "up" in now(job).log_tail())
    command = psutil.Process(now(job).processes[1][0])
    [orphan] = command.children()
    command.kill()
    until(lambda: now(job).over)
    studio.jobs.kill(now(job))
    until(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE)


def test_jobs_wait_for_their_device_in_order(studio: Studio) -> None:
    first = python_job(studio.jobs, "import time; print('up', flush=True); time.sleep(600)")
    (first.folder / "argv.json").write_text(json.dumps({**first.record, "devices": ["cpu"]}))
    queue = Queue(studio.jobs, grace=1.0)
    queue.advance()
    waiting = studio.jobs.add(["sft", "--print_config", "yaml"], devices=["cpu"])
    free = studio.jobs.add(["sft", "--print_config", "yaml"])
    queue.advance()
    until(lambda: now(free).over)
    assert now(waiting).state == "queued"
    studio.jobs.stop(now(first))
    until(lambda: queue.advance() or now(waiting).state == "done")
    taken_back = studio.jobs.add(["sft"], devices=["cpu"])
    studio.jobs.stop(taken_back)
    assert now(taken_back).state == "stopped"


def test_what_a_job_occupies() -> None:
    assert wanted_devices("sft", (), ("cpu",), dry=False) == ("cpu",)
    assert wanted_devices("deploy", (), ("cpu",), dry=False) == ()
    assert wanted_devices("sft", (), ("0", "1"), dry=False) == ("0",)
    assert wanted_devices("sft", ("0", "1", "7"), ("0", "1"), dry=False) == ("0", "1")
    assert wanted_devices("deploy", (), ("0", "1"), dry=False) == ("0",)
    assert wanted_devices("sft", (), ("0", "1"), dry=True) == ()


def test_a_secret_is_nowhere_but_in_the_environment_of_its_job(studio: Studio) -> None:
    job = python_job(studio.jobs, "import time; print('up', flush=True); time.sleep(600)")
    studio.jobs._secrets[job.id] = {"SWIFT_API_KEY": "sesame-12345"}
    studio.jobs.start(job)
    until(lambda: "up" in now(job).log_tail())
    command = psutil.Process(now(job).processes[1][0])
    assert command.environ()["SWIFT_API_KEY"] == "sesame-12345"
    assert "sesame" not in " ".join(command.cmdline())
    written = [path.read_bytes() for path in studio.output.rglob("*") if path.is_file()]
    assert written and not any(b"sesame" in text for text in written)
    studio.jobs.kill(now(job))
    until(lambda: now(job).over)


def test_a_queued_job_without_its_secret_waits_for_a_person(studio: Studio, tmp_path: Path) -> None:
    start(studio, ["deploy", "--port", "1"], {"api_key": "sesame"}, [], dry=False)
    later = Jobs(studio.jobs.folder, tmp_path)
    [job] = later.all()
    assert job.record["secrets"] == ["SWIFT_API_KEY"]
    Queue(later, grace=1.0).advance()
    assert now(job).state == "queued" and later.lacks_secrets(job)
