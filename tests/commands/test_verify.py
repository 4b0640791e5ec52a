"""`swift verify`, and the report of the run that it checks."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swift.cli import main


def test_a_run_reports_itself_and_its_first_steps_are_repeated(
    tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With dropout, shuffling, validation and more steps than are repeated: all of them take part in the losses."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"query": f"Say {n}", "response": f"{n} it <b>is"}) + "\n" for n in range(12)))
    run = tmp_path / "run"
    words = ["--model_id_or_path", str(tiny_llama_dir), "--dataset", str(rows), "--output_dir", str(run)]
    words += ["--add_output_dir_suffix", "false", "--max_steps", "4", "--batch_size", "2", "--logging_steps", "1"]
    words += ["--gradient_accumulation_steps", "2", "--lora_dropout", "0.2", "--dataset_test_ratio", "0.2"]
    assert main(["sft", *words, "--eval_steps", "2"]) == 0

    page = (run / "report.html").read_text(encoding="utf-8")
    assert "finished" in page and "step 4 of 4" in page and page.count("<svg") >= 4
    assert "<tr><td class=i>lora_dropout<td>0.2<td>command line" in page
    assert "<tr><td class=i>template_type<td>jinja<td>decided by model, rows and machine" in page
    assert "--lora_dropout 0.2" in page and "checkpoint-4" in page and "torch" in page
    assert "src=" not in page and "http" not in page.replace("http://www.w3.org", "")

    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    capsys.readouterr()
    assert main(["verify", str(run), "--steps", "3"]) == 0
    assert capsys.readouterr().out.count(" same\n") == 3
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before

    log = run / "logging.jsonl"
    first, *rest = log.read_text(encoding="utf-8").splitlines()
    loss = round(json.loads(first)["loss"], 5)
    log.write_text("\n".join([json.dumps({**json.loads(first), "loss": loss}), *rest, ""]), encoding="utf-8")
    assert main(["verify", str(run), "--steps", "1"]) == 1
    assert "differs" in capsys.readouterr().out
    rows.write_text(rows.read_text().replace("Say", "Tell"))
    assert main(["verify", str(run), "--steps", "1"]) == 1
    told = capsys.readouterr().out
    assert f"rows {rows} was: 12 lines, " in told and "weights was" not in told and "code of swift was" not in told


STOPS_ITSELF = """
import os, signal, threading, time
from pathlib import Path

def stop(log=Path("run/logging.jsonl")):
    while not log.is_file() or log.read_text().count('"loss"') < 2:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=stop, daemon=True).start()
"""


def test_a_run_that_was_told_to_stop_reports_each_command_it_took(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"query": f"Say {n}", "response": f"{n} it is"} for n in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "stops.py").write_text(STOPS_ITSELF)
    words = f"sft --model_id_or_path {tiny_llama_dir} --dataset rows.jsonl --output_dir run --batch_size 2".split()
    words += [
        "--add_output_dir_suffix",
        "false",
        "--logging_steps",
        "1",
        "--gradient_accumulation_steps",
        "1",
        "--report_to",
        "none",
    ]
    begun = [*words, "--max_steps", "3000", "--learning_rate", "1e-3", "--custom_register_path", "stops.py"]
    assert main(begun) == 75
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "stopped by a signal" in page and "go on with: swift sft --" in page and "went on with" not in page

    (last,) = (tmp_path / "run").glob("checkpoint-*")
    more = ["--learning_rate", "1e-5", "--max_steps", str(int(last.name.partition("-")[2]) + 1)]
    assert main([*words, *more, "--resume_from_checkpoint", str(last)]) == 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    first, _, then = page.partition("went on with")
    assert "finished" in first and "stops.py" in first and "1e-05" in then and "time since it went on" in first
    (tmp_path / "stops.py").write_text("")
    capsys.readouterr()
    assert main(["verify", "run", "--steps", "9"]) == 0, "the first steps are those of the first command"
    assert capsys.readouterr().out.count(" same\n") == min(9, int(last.name.partition("-")[2]))
    assert main([*begun, "--resume_from_checkpoint", "run"]) == 2
    told = capsys.readouterr().err
    assert "run is not a checkpoint" in told and "--resume_from_checkpoint run/checkpoint-" in told


@pytest.fixture
def pairs(tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A run of DPO from rows that are named relative to the folder it is started in."""
    rows = [{"query": f"Say {n}", "response": f"{n} it is", "rejected_response": "no " * n + "."} for n in range(12)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    words = ["dpo", "--model_id_or_path", str(tiny_llama_dir), "--dataset", "pairs.jsonl", "--output_dir", "run"]
    words += ["--add_output_dir_suffix", "false", "--logging_steps", "1", "--batch_size", "2", "--save_steps", "1"]
    return [*words, "--gradient_accumulation_steps", "1", "--max_steps", "4", "--report_to", "none"]


@pytest.mark.slow
def test_a_failed_run_reports_why(pairs: list[str], tmp_path: Path) -> None:
    assert main([*pairs, "--lora_dropout", "1"]) == 0, "dropout is off where two answers are compared"
    assert main(["sft", *pairs[1:], "--output_dir", "failed", "--lora_dropout", "1"]) == 1
    page = (tmp_path / "failed" / "report.html").read_text(encoding="utf-8")
    assert "failed: " in page and "the gradient of the first step is 0" in page and "finished" not in page


@pytest.mark.slow
def test_a_killed_run_reports_that_it_has_not_ended_and_is_verified_once_resumed(
    pairs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*pairs, "--max_steps", "25"]
    process = subprocess.Popen([sys.executable, "-m", "swift", *words], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 200
    while not (tmp_path / "run" / "checkpoint-3").is_dir():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    process.kill()
    process.wait()
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "not ended" in page and "checkpoint-2" in page and "<svg" in page
    assert main([*words, "--resume_from_checkpoint", "auto"]) == 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "finished" in page and "step 25 of 25" in page and "not ended" not in page
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["verify", "../run", "--steps", "2"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no run is named"),
        (["nowhere"], "there is no folder"),
        (["run", "--steps", "1.5"], "--steps takes a whole number, not `1.5`"),
    ],
)
def test_what_is_no_run_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["verify", *words]) == 2
    assert message in capsys.readouterr().err
