"""`swift infer` from the command line: rows to a result file, and a chat through a pipe."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from swift.cli import main

ROWS: list[dict[str, Any]] = [
    {"query": "What is red?", "response": "A colour."},
    {"query": "And blue?", "history": [["What is red?", "A colour."]], "system": "Be brief."},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    {"query": "One more"},
]


def written(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("*.jsonl")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def infer(model: Path, results: Path, *words: str) -> int:
    return main(
        ["infer", "--model_id_or_path", str(model), "--result_dir", str(results), "--max_new_tokens", "6", *words]
    )


def test_rows_in_are_rows_out_and_a_bad_one_says_why(
    tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps(row) for row in ROWS]
    lines.insert(1, '{"query": "cut o')
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(lines) + "\n")
    assert infer(tiny_llama_dir, tmp_path / "results", "--val_dataset", str(data)) == 0
    rows = written(tmp_path / "results")
    assert [row["query"] for row in rows] == ["What is red?", "", "And blue?", "Hi", "One more"]
    assert [row["label"] for row in rows] == ["A colour.", None, None, "Hello", None]
    assert rows[2]["system"] == "Be brief."
    assert rows[2]["history"] == [["What is red?", "A colour."]]
    assert list(rows[0]) == ["system", "query", "response", "label", "history"]
    assert rows[1]["response"] is None
    assert "rows.jsonl:2" in rows[1]["error"]
    given = capsys.readouterr()
    assert given.out.count("[PROMPT]") == 4
    assert given.out.count("[LABELS]") == 2
    assert "rouge-l" in given.err and "exact-match" in given.err


def test_variables_of_media_that_a_model_of_text_does_not_read_are_said(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAX_PIXELS", "50176")
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps(ROWS[0]) + "\n")
    assert infer(tiny_llama_dir, tmp_path / "results", "--val_dataset", str(data)) == 0
    assert "MAX_PIXELS is set, and this model does not read it" in capsys.readouterr().err


def test_answers_that_are_not_kept_are_scored_all_the_same(
    tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = ["--val_dataset", str(data), "--temperature", "0"]
    scored: list[str] = []
    for keep in ("true", "false"):
        assert infer(tiny_llama_dir, tmp_path / "results", *words, "--save_result", keep) == 0
        scored += [line.partition("against")[2] for line in capsys.readouterr().err.splitlines() if "rouge-l" in line]
    assert len(scored) == 2 and scored[0] == scored[1]
    data.write_text('{"query": "cut o\n')
    assert infer(tiny_llama_dir, tmp_path / "results", *words, "--save_result", "false") == 1
    assert "no row could be answered" in capsys.readouterr().err


def test_a_bar_instead_of_answers_and_fewer_rows(
    tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"query": f"Say {i}"}) + "\n" for i in range(9)))
    words = ["--val_dataset", str(data), "--verbose", "false", "--show_dataset_sample", "3"]
    assert infer(tiny_llama_dir, tmp_path / "results", *words) == 0
    assert [row["query"] for row in written(tmp_path / "results")] == ["Say 0", "Say 1", "Say 2"]
    given = capsys.readouterr()
    assert given.out == ""
    assert "3 of 3 rows" in given.err


def test_a_killed_run_goes_on_where_it_was(tiny_llama_dir: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"query": f"Say {i}"}) + "\n" for i in range(80)))
    results = tmp_path / "results"
    words = ["infer", "--model_id_or_path", str(tiny_llama_dir), "--result_dir", str(results)]
    words += ["--val_dataset", str(data), "--max_new_tokens", "20"]
    child = subprocess.Popen(
        [sys.executable, "-m", "swift", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while child.poll() is None and not any(path.stat().st_size for path in results.glob("*.jsonl")):
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    (path,) = results.glob("*.jsonl")
    before = path.read_bytes()
    assert 0 < before.count(b"\n") < 80
    # The line that was being written when the process died.
    path.write_bytes(before + b'{"system": null, "que')
    assert main(words) == 0
    assert [row["query"] for row in written(results)] == [f"Say {i}" for i in range(80)]
    assert path.read_bytes().startswith(before)
    assert not list(results.glob("*.unfinished"))


def test_the_checkpoint_brings_model_adapter_and_held_back_rows(
    tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"query": f"Say {i}", "response": f"{i} it is"}) + "\n" for i in range(20)))
    words = ["--model_id_or_path", str(tiny_llama_dir), "--dataset", str(data), "--dataset_test_ratio", "0.2"]
    more = [
        "--max_steps",
        "1",
        "--learning_rate",
        "0.5",
        "--output_dir",
        str(tmp_path),
        "--add_output_dir_suffix",
        "false",
    ]
    assert main(["sft", *words, *more]) == 0
    checkpoint = tmp_path / "checkpoint-1"
    ledger = [json.loads(line) for line in (tmp_path / "data_ledger.jsonl").read_text().splitlines()]
    held_back = {row["line"] for row in ledger if row.get("split") == "val"}
    capsys.readouterr()
    words = ["--ckpt_dir", str(checkpoint), "--max_new_tokens", "4", "--load_dataset_config", "true"]
    assert main(["infer", *words, "--dtype", "bf16"]) == 0
    rows = written(checkpoint / "infer_result")
    assert {int(row["query"].removeprefix("Say ")) + 1 for row in rows} == held_back
    assert all(row["label"] for row in rows)
    given = capsys.readouterr().err
    assert "default-lora" in given
    assert "--dtype: bf16 (the checkpoint was trained with" in given


def test_generation_settings_in_use_are_written(tiny_llama_dir: Path, tmp_path: Path) -> None:
    import shutil

    model = tmp_path / "model"
    shutil.copytree(tiny_llama_dir, model)
    data = tmp_path / "rows.jsonl"
    data.write_text('{"query": "Hi"}\n')
    words = ["--val_dataset", str(data), "--overwrite_generation_config", "true"]
    drawn = ["--do_sample", "true", "--temperature", "0.5", "--top_k", "7"]
    assert infer(model, tmp_path / "results", *words, *drawn) == 0
    config = json.loads((model / "generation_config.json").read_text())
    assert (config["do_sample"], config["temperature"], config["top_k"]) == (True, 0.5, 7)
    assert config["eos_token_id"] == 2
    # What was written is what the next run does.
    again, other = tmp_path / "again", tmp_path / "other"
    assert infer(model, again, "--val_dataset", str(data)) == 0
    assert infer(model, other, "--val_dataset", str(data), *drawn) == 0
    assert written(again)[0]["response"] == written(other)[0]["response"]


def test_a_seed_that_is_given_to_a_chat_draws_the_same_answers_again(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(name: str, *words: str) -> list[str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\nclear\nHello\n"))
        sampled = ("--do_sample", "true", "--temperature", "1", "--top_k", "0", "--top_p", "1")
        assert infer(tiny_llama_dir, tmp_path / name, *sampled, *words) == 0
        return [row["response"] for row in written(tmp_path / name)]

    drawn = answers("first", "--seed", "7")
    assert answers("again", "--seed", "7") == drawn
    assert drawn[0] != drawn[1]
    assert answers("other", "--seed", "8")[0] == drawn[1]
    assert answers("without") != drawn


def test_a_chat_through_a_pipe(
    tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = ["Hello", "", "clear", "multi-line", "line one", "line two#", "single-line#", "reset-system", "Be brief."]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join([*entries, "Hi", "history", "More"])))
    assert infer(tiny_llama_dir, tmp_path / "results") == 0
    rows = written(tmp_path / "results")
    assert [(row["query"], row["system"], len(row["history"])) for row in rows] == [
        ("Hello", None, 0),
        ("line one\nline two", None, 0),
        ("Hi", "Be brief.", 0),
        ("More", "Be brief.", 1),
    ]
    assert list(rows[0]) == ["system", "query", "response", "history"]
    given = capsys.readouterr().out
    assert "<<<[M] " in given and "<<<[S] " in given
    assert "system: Be brief." in given


def test_a_folder_that_cannot_be_written_shows_before_the_weights_are_loaded(
    tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps(ROWS[0]))
    for folder, why in ((data, "is a file"), (data / "sub", "Not a directory"), (Path("/proc/no"), "No such file")):
        assert infer(tiny_llama_dir, folder, "--val_dataset", str(data)) == 2
        error = capsys.readouterr().err
        assert "--result_dir" in error and why in error
        assert "requests run" not in error


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["--eval_human", "false"], "no rows to answer"),
        (["--lora_modules", "nameless"], "nameless"),
        (["--infer_backend", "lmdeploy", "--num_beams", "2"], "beam"),
        (["--val_dataset", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--max_model_len", "4097"], "--max_model_len 4097 is more than the 4096 positions"),
    ],
)
def test_mistakes_show_before_anything_is_loaded(
    words: list[str], wrong: str, tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(tiny_llama_dir, tmp_path / "results", *words) == 2
    given = capsys.readouterr().err
    assert wrong in given
    assert "Traceback" not in given
