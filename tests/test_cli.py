"""The command line as a person meets it: exit codes and what is printed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swift import cli
from swift.core.launch import torchrun_words, wants_processes
from swift.params.commands import COMMANDS


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(words)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_overview(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    assert all(name in out for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--version")
    assert code == 0
    assert out.startswith("swift 0.")


@pytest.mark.parametrize("name", [*COMMANDS, "dpo", "merge_lora", "web_ui"])
def test_help_of_each_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    short = run(capsys, name, "--help")
    full = run(capsys, name, "--help-all")
    assert short[0] == full[0] == 0
    assert len(full[1]) > len(short[1])


def test_print_config_needs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        code, out, err = run(capsys, name, "--print_config", "json")
        assert (code, err) == (0, "")
        assert json.loads(out)["command"] == name
    assert run(capsys, "infer", "--ckpt_dir", "/no/such/folder", "--print_config")[0] == 0


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["stf"], ["`stf` is not a command", "did you mean `swift sft`"]),
        (["--lora_rank", "8"], ["stands before a command"]),
        (["sft", "--lerning_rate", "1"], ["--lerning_rate", "did you mean --learning_rate?"]),
        (["sft", "--ckpt_dir", "x"], ["that flag belongs to `infer`"]),
        (["sft"], ["no model is given", "no rows to train on"]),
        (["sft", "--model_type", "m"], ["no rows to train on", "--dataset"]),
        (["infer"], ["no model is given", "--ckpt_dir"]),
        (["infer", "--ckpt_dir", "/no/such"], ["--ckpt_dir /no/such is not a folder"]),
        (["merge-lora"], ["no adapter to merge"]),
        (["sft", "nowhere.yaml"], ["cannot be read", "nowhere.yaml"]),
    ],
)
def test_mistakes(words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) <= 6
    assert "Traceback" not in err
    assert all(part in err for part in parts), err


def test_mistakes_of_every_sort_come_together(capsys: pytest.CaptureFixture[str]) -> None:
    words = "sft --lerning_rate 1 --lora_rank x --model_type m --dataset d --freeze_parameters_ratio 0.5"
    code, _, err = run(capsys, *words.split())
    assert code == 2
    assert all(part in err for part in ("--lerning_rate", "--lora_rank", "--freeze_parameters_ratio"))


def test_never_more_than_six_lines(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "sft", *(word for n in range(9) for word in (f"--wrong{n}xyz", "1")))
    assert code == 2
    assert len(err.splitlines()) == 6
    assert "more" in err.splitlines()[-1]


def test_traceback_only_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Traceback" in run(capsys, "sft", "--lerning_rate", "1", "--debug")[2]


def test_a_bug_of_ours_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_words: list[str]) -> int:
        raise KeyError("surprise")

    monkeypatch.setattr(cli, "_dispatch", broken)
    code, _, err = run(capsys, "sft")
    assert code == 1
    assert err.startswith("internal error: KeyError: 'surprise' (")
    assert "--debug" in err
    assert "Traceback" not in err


def test_ctrl_c(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", stopped)
    assert run(capsys, "sft") == (130, "", "interrupted\n")


def test_only_the_first_process_of_a_machine_speaks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert run(capsys, "stf")[2], "a variable left over from elsewhere silences nobody"
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert run(capsys, "stf") == (2, "", "")


def test_when_processes_are_wanted() -> None:
    assert not wants_processes({})
    assert wants_processes({"NPROC_PER_NODE": "2"})
    assert wants_processes({"NNODES": "2"})
    assert not wants_processes({"NPROC_PER_NODE": "2", "LOCAL_RANK": "0"})


def test_torchrun_words() -> None:
    words = torchrun_words(
        ["sft", "--seed", "1"],
        {"NPROC_PER_NODE": "4", "NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "host", "MASTER_PORT": "29501"},
    )
    assert {"--nproc_per_node=4", "--nnodes=2", "--node_rank=1", "--master_addr=host", "--master_port=29501"} <= set(
        words
    )
    assert words[-4:] == ["swift", "sft", "--seed", "1"]


@pytest.mark.parametrize("env", [{"NPROC_PER_NODE": "two"}, {"NPROC_PER_NODE": "0"}, {"NNODES": "2"}])
def test_wrong_environment(env: dict[str, str]) -> None:
    with pytest.raises(Exception, match=r"NPROC_PER_NODE is `|MASTER_ADDR is not set"):
        torchrun_words(["sft"], env)


def _torchrun(folder: Path, worker: str) -> subprocess.Popen[str]:
    """The worker's code in two processes, started as `swift` starts them."""
    (folder / "worker.py").write_text(worker)
    words = [sys.executable, "-m", "swift.core.torchrun", "--nproc_per_node=2", "--master_port=0", "worker.py"]
    code = f"import os, sys; from swift.core.launch import run_child; sys.exit(run_child({words}, os.environ))"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, text=True, cwd=folder)


def test_processes_pass_on_their_exit_code(tmp_path: Path) -> None:
    child = _torchrun(tmp_path, "import sys; sys.exit(2)")
    _, err = child.communicate(timeout=120)
    assert child.returncode == 2
    assert "Traceback" not in err


def test_sigterm_reaches_the_processes(tmp_path: Path) -> None:
    worker = (
        "import os, signal, sys, time, pathlib\n"
        "def stop(*_):\n"
        "    pathlib.Path('saved' + os.environ['RANK']).touch(); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "pathlib.Path('ready' + os.environ['RANK']).touch()\n"
        "time.sleep(100)\n"
    )
    child = _torchrun(tmp_path, worker)
    deadline = time.monotonic() + 100
    while not ((tmp_path / "ready0").exists() and (tmp_path / "ready1").exists()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=100)
    assert child.returncode == 75
    assert (tmp_path / "saved0").exists()
    assert (tmp_path / "saved1").exists()


def test_a_killed_process_is_named(tmp_path: Path) -> None:
    worker = "import os, signal, time\nos.kill(os.getpid(), 9) if os.environ['RANK'] == '1' else time.sleep(60)\n"
    child = _torchrun(tmp_path, worker)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 137
    assert "process 1 was ended by SIGKILL" in err
    assert "Traceback" not in err


def test_input_is_utf8_where_the_locale_says_nothing() -> None:
    code = "import sys; from swift import cli; cli.main = lambda: print(ascii(input())); cli.script()"
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = subprocess.run([sys.executable, "-c", code], env=env, input="h\u00e9\n".encode(), capture_output=True)
    assert ran.stdout == b"'h\\xe9'\n"
