"""Run folders read as they grow, and their curves."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from swift.reports.chart import chart, thinned
from swift.reports.run_files import Run, events_of, find_runs
from swift.web.pages import compared, differences, duration, live_parts, plain


def event(step: int, loss: float, **more: float) -> str:
    values = {"loss": loss, "learning_rate": 1e-4, "tokens/s": 900.0, "memory(GiB)": 0.6, **more}
    return json.dumps({**values, "global_step/max_steps": f"{step}/10", "remaining_time": "9s"}) + "\n"


def run_folder(path: Path, steps: int = 3, **args: object) -> Path:
    """A run of so many steps that a terminal began."""
    path.mkdir(parents=True)
    (path / "logging.jsonl").write_text("".join(event(n, 5 / n) for n in range(1, steps + 1)))
    (path / "sft_args.json").write_text(
        json.dumps({"command": "sft", "model_type": "tiny", "sft_type": "lora", **args})
    )
    return path


def test_a_growing_log_is_read_line_by_line(tmp_path: Path) -> None:
    log = tmp_path / "logging.jsonl"
    assert events_of(log) == []
    log.write_text(event(1, 2.0) + event(2, 1.0)[:20])
    assert [e["loss"] for e in events_of(log)] == [2.0]
    log.write_text(event(1, 2.0) + event(2, 1.0) + "not json\n" + event(3, float("nan")))
    assert len(events_of(log)) == 3
    log.write_text(event(1, 7.0))
    assert [e["loss"] for e in events_of(log)] == [7.0], "a file begun anew is read anew"


def test_what_a_run_tells(tmp_path: Path) -> None:
    run = Run(run_folder(tmp_path / "a"))
    assert (run.title, run.progress, run.remaining, run.latest["loss"]) == ("sft · tiny · lora", (3, 10), "9s", 5 / 3)
    assert not run.active and run.checkpoints == [] and run.ledger == {} and run.samples == []
    checkpoint = tmp_path / "a" / "checkpoint-3"
    checkpoint.mkdir()
    assert [(c.step, c.whole) for c in Run(run.folder).checkpoints] == [(3, False)]
    (checkpoint / "manifest.json").write_text(json.dumps({"version": 1, "files": {}}))
    (tmp_path / "a" / "data_ledger.jsonl").write_text(
        json.dumps({"summary": {"rows": 4, "kept": 3, "dropped": 1}}) + "\n"
    )
    (tmp_path / "a" / "samples.jsonl").write_text(json.dumps({"prompt": "<b>Hi", "before": "x", "after": "y"}) + "\n")
    parts = live_parts(None, Run(run.folder), "en")
    assert "checkpoint-3" in parts["results"] and "resume=" in parts["results"]
    assert "3/10" in parts["status"] and "dropped" in parts["ledger"] and "&lt;b&gt;Hi" in parts["samples"]
    assert parts["curves"].count("<svg") == 4


def test_the_lock_tells_whether_a_run_goes_on(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a")
    with (folder / ".lock").open("w") as lock:
        lock.write(f"process {os.getpid()} on {socket.gethostname()}: swift sft\n")
        lock.flush()
        assert Run(folder).active
    assert not Run(folder).active, "the number alone says nothing"


def test_runs_of_a_terminal_are_found(tmp_path: Path) -> None:
    run_folder(tmp_path / "tiny" / "v0-20260101-000000")
    run_folder(tmp_path / "mine")
    run_folder(tmp_path / "mine" / "checkpoint-3" / "inside")
    (tmp_path / "jobs" / "20260101-000000-sft-abcdef").mkdir(parents=True)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert {run.folder.name for run in find_runs(tmp_path)} == {"v0-20260101-000000", "mine"}
    assert find_runs(tmp_path / "nowhere") == []


def test_charts_leave_out_what_cannot_be_drawn() -> None:
    assert chart("loss", {"loss": []}) == "" and chart("loss", {"loss": [(1, float("nan"))]}) == ""
    one = chart("a<b", {"x": [(1, 0.0)]})
    assert "<svg" in one and "a&lt;b" in one and "NaN" not in one and "nan" not in one
    assert "inf" not in chart("loss", {"a": [(1, float("inf")), (2, 1.0)], "b": [(1, 2.0)]})
    many = [(n, 100.0 if n == 5000 else 1.0) for n in range(10000)]
    assert len(thinned(many)) < 500 and (5000, 100.0) in thinned(many)


def test_two_runs_in_one_chart(tmp_path: Path) -> None:
    runs = {name: Run(run_folder(tmp_path / name, lora_rank=rank)) for name, rank in (("a", 4), ("b", 8))}
    loss = dict(compared(runs))["loss"]
    assert loss.count('class="line') == 2 and loss.names == ("a", "b")
    assert differences(runs) == [("lora_rank", ["4", "8"])]


def test_a_terminals_colours_are_left_out() -> None:
    assert plain("\x1b[31mred\x1b[0m \x1b[2K<b>") == "red <b>"
    assert [duration(n) for n in (5, 65, 3700)] == ["5s", "1m 5s", "1h 1m"]
