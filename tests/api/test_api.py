"""The Python API: the notebook of the examples from its first cell to its last, and what calls refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import swift
from swift.api.arguments import arguments
from swift.checking.verdict import Verdict
from swift.core.log import log, once
from swift.params.commands import COMMANDS, find_command
from swift.params.parse import parse, read_call
from swift.params.stubs import CALLS, NOT_KEYWORDS, stubs

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOK = EXAMPLES / "python-api.ipynb"


def code_cells() -> list[str]:
    """The code of the notebook, cell by cell."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_runs_from_top_to_bottom(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first, *rest = code_cells()
    rows = "".join(json.dumps({"query": f"Say {i}", "response": f"{i} it is"}) + "\n" for i in range(8))
    (tmp_path / "rows.jsonl").write_text(rows)
    names: dict[str, Any] = {}
    exec(first, names)
    names |= {"model": {"model_id_or_path": tiny_llama_dir, "template_type": "chatml"}, "rows": "rows.jsonl"}
    for cell in rest:
        exec(cell, names)
    run = names["run"]
    assert run.best.is_dir() and run.last.name == f"checkpoint-{run.metrics['global_step']}"
    assert run.metrics["loss"] > 0 and len(names["answers"]) == 3
    assert [turn["role"] for turn in names["chat"].messages] == ["user", "assistant"] * 2
    assert names["merged"].name.endswith("-merged") and isinstance(names["answer"]["usage"]["prompt_tokens"], int)
    assert "did you mean --lora_rank?" in capsys.readouterr().out
    with pytest.raises(swift.SwiftError, match="closed"):
        names["tuned"].generate("still there?")


@pytest.mark.slow
def test_the_notebook_in_jupyter(tmp_path: Path, smollm2_dir: Path) -> None:
    import nbclient
    import nbformat

    (tmp_path / "data").symlink_to(EXAMPLES / "data")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert all(cell["outputs"] for cell in notebook.cells[3:] if cell.cell_type == "code")


def test_a_conversation_goes_on_after_a_blank_answer(tiny_llama_dir: Path) -> None:
    with swift.load(tiny_llama_dir, template_type="chatml", temperature=0, max_new_tokens=2) as model:
        said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "  "}]
        talk, asked = model.chat(), {"role": "user", "content": "b"}
        talk.messages = [*said]
        assert talk("b") == model.generate([*said, asked]) and talk.messages[:3] == [*said, asked]
        with pytest.raises(swift.SwiftError, match=r"messages\[2\].content: expected some text"):
            talk.messages = [*said]
            talk(" ")


@pytest.mark.parametrize(
    ("messages", "sampling", "message"),
    [
        ({"role": "user", "content": "a"}, {}, "messages take a question, or a list of turns"),
        (None, {}, "messages take a question, or a list of turns"),
        (["a"], {}, "messages take a question, or a list of turns"),
        ("a", {"max_new_tokens": 0}, "where: max_new_tokens="),
        ("a", {"max_new_tokens": 1.5}, "where: max_new_tokens="),
        ("a", {"temperature": -1}, "where: temperature="),
        ("a", {"temperature": "hot"}, "where: temperature="),
        ("a", {"seed": "a"}, "where: seed="),
    ],
)
def test_what_cannot_be_asked_is_refused(
    asked: swift.Model, messages: Any, sampling: dict[str, Any], message: str
) -> None:
    with pytest.raises(swift.SwiftError, match=message):
        asked.generate(messages, **sampling)


@pytest.fixture(scope="module")
def asked(tiny_llama_dir: Path) -> Iterator[swift.Model]:
    with swift.load(tiny_llama_dir, template_type="chatml") as model:
        yield model


def test_a_call_in_a_thread_trains(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(json.dumps({"query": f"Say {i}", "response": f"{i} it is"}) + "\n" for i in range(8))
    (tmp_path / "rows.jsonl").write_text(rows)
    flags: dict[str, Any] = {"model_id_or_path": tiny_llama_dir, "dataset": "rows.jsonl", "max_steps": 1}
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(lambda: swift.sft(**flags, report_to="none")).result()
    assert run.best is not None and "SIGTERM and Ctrl-C are not heard" in caplog.text


def test_one_call_trains_at_a_time(tiny_llama_dir: Path, tmp_path: Path) -> None:
    inner: list[str] = []

    def second(*_: Any) -> str:
        with pytest.raises(swift.SwiftError) as refused:
            swift.sft(**flags)
        inner.append(str(refused.value))
        return "x"

    rows = "".join(json.dumps({"query": f"Say {i}", "response": f"{i} it is"}) + "\n" for i in range(8))
    (tmp_path / "rows.jsonl").write_text(rows)
    flags: dict[str, Any] = {"model_id_or_path": tiny_llama_dir, "dataset": tmp_path / "rows.jsonl", "dry_run": True}
    with patch("swift.training.dry_run.preview", second):
        swift.sft(**flags)
    assert "another call trains in this process" in inner[0]
    assert swift.sft(**flags).best is None  # the first has let go


def test_a_run_that_was_stopped_has_its_checkpoints(tmp_path: Path) -> None:
    for step, best in ((2, None), (4, "elsewhere/checkpoint-2"), (10, "elsewhere/checkpoint-2")):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(json.dumps({"best_model_checkpoint": best}))
    (tmp_path / "logging.jsonl").write_text('{"loss": 2.5, "step": 1}\n{"last_model_checkpoint": "checkpoint-4"}\n')
    run = swift.Run(str(tmp_path))  # type: ignore[arg-type]
    assert (run.best, run.last) == (tmp_path / "checkpoint-2", tmp_path / "checkpoint-10")
    assert run.metrics == {"loss": 2.5, "step": 1}
    (tmp_path / "checkpoint-10" / "trainer_state.json").unlink()
    assert run.best == run.last


def test_a_package_that_is_not_there_is_named_with_the_line_that_brings_it(
    tiny_llama_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"query": "a", "response": "b"}\n' * 8)
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n")
    code = """import sys, swift
calls = lambda: swift.sft(model_id_or_path=sys.argv[1], dataset="rows.jsonl"), lambda: swift.load(sys.argv[1])
for call in (*calls, lambda: swift.deploy(model_id_or_path=sys.argv[1]).__enter__()):
    try: call()
    except swift.SwiftError as error: print(error)
"""
    words = [sys.executable, "-c", code, str(tiny_llama_dir)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=env, check=True)
    assert done.stdout.count("the package `torch` cannot be imported") == 3
    assert done.stdout.count(" -m pip install ") == 3


def test_adapters_have_names(tmp_path: Path) -> None:
    called = read_call("deploy", None, {"lora_modules": {"a": tmp_path, "b": "there,or=here"}})
    assert called.args.values["lora_modules"] == (f"a={tmp_path}", "b=there,or=here")
    (tmp_path / "run.yaml").write_text("vllm_lora_modules:\n  a: there\n  b: here\n")
    assert read_call("app-ui", str(tmp_path / "run.yaml"), {}).args.values["lora_modules"] == ("a=there", "b=here")
    for wrong in ({"a": 3}, {"a": ["there"]}):
        with pytest.raises(swift.SwiftError, match="a mapping of names to texts"):
            arguments("deploy", None, {"lora_modules": wrong})


@pytest.mark.parametrize("command", ["sft", "pt", "rlhf", "dpo", "rm"])
def test_a_check_is_of_the_training_that_is_named(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[Any] = []
    monkeypatch.setattr("swift.checking.subject.planned_of", planned.append)
    lines: list[list[str]] = []
    monkeypatch.setattr("swift.checking.checks.verdict_of", lambda _, words: lines.append(words))
    cities = EXAMPLES / "data" / "cities.jsonl"
    swift.check(command=command, model_type="smollm2-135m-instruct", dataset=cities)
    assert planned[0].command == find_command("rlhf" if command == "rm" else command)[0].name == lines[0][0]
    if command in ("dpo", "rm"):
        assert planned[0].values["rlhf_type"] == command and command in lines[0]


def test_a_check_is_written_where_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Verdict(subject="a model", results=[], command="swift check", seconds=0.0)
    monkeypatch.setattr("swift.checking.subject.planned_of", lambda _: None)
    monkeypatch.setattr("swift.checking.checks.verdict_of", lambda *_: verdict)
    flags: dict[str, Any] = {"model_type": "smollm2-135m-instruct", "dataset": EXAMPLES / "data" / "cities.jsonl"}
    assert swift.check(**flags, result_path=tmp_path / "new" / "check.json") is verdict
    assert json.loads((tmp_path / "new" / "check.json").read_text()) == verdict.as_json()
    with pytest.raises(swift.SwiftError, match="is a folder"):
        swift.check(**flags, result_path=tmp_path)


@pytest.mark.parametrize("call", [swift.sft, partial(swift.rlhf, rlhf_type="dpo")])
def test_tokens_of_another_tokenizer_are_refused(call: Any, tiny_llama_dir: Path, tmp_path: Path) -> None:
    rows = [{"query": f"Say {i}", "response": f"{i} it is", "rejected_response": "no"} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags: dict[str, Any] = {"model_id_or_path": tiny_llama_dir, "dataset": tmp_path / "rows.jsonl", "dry_run": True}
    with pytest.raises(swift.SwiftError, match="deepseek2 writes the token 100000, which this tokenizer has not"):
        call(**flags, template_type="deepseek2", output_dir=tmp_path / "out")


def test_rows_are_files() -> None:
    with pytest.raises(swift.SwiftError, match="dataset takes names and files") as refused:
        swift.sft(model_type="smollm2-135m-instruct", dataset=[{"query": "a" * 200, "response": "b"}])
    assert "JSONL" in str(refused.value.next) and len(str(refused.value.where)) <= 120


def test_keywords_are_the_flags() -> None:
    words = "--model_type smollm2-135m-instruct --dataset a b --lora_rank 4 --learning_rate 2e-4 --packing true"
    keywords: dict[str, Any] = {
        "model_type": "smollm2-135m-instruct",
        "dataset": ["a", Path("b")],
        "lora_rank": 4,
        "learning_rate": 2e-4,
        "packing": True,
        "per_device_train_batch_size": 1,
        "hub_model_id": None,
    }
    called = read_call("sft", None, keywords)
    assert not called.errors
    typed = parse(["sft", *words.split()])
    assert called.args.values == typed.values
    assert called.args.is_explicit("learning_rate") and not called.args.is_explicit("seed")


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"lerning_rate": 1}, "did you mean --learning_rate"),
        ({"learning_rate": "fast"}, "takes a number, not `fast`"),
        ({"learning_rate": [1]}, "not a list"),
        ({"learning_rate": object()}, "takes no object"),
        ({"lora_rank": 8.5}, "takes a whole number"),
        ({"lora_rank": 0}, "must be at least 1"),
        ({"sft_type": "lorra"}, "`lora`"),
        ({"packing": "maybe"}, "takes true or false"),
        ({"lora_rank": None}, "not None"),
        ({"batch_size": 2, "per_device_train_batch_size": 3}, "same flag with two values"),
        ({"print_config": "yaml"}, "print_config is for the command line"),
        ({"dataset": ["none.jsonl"]}, "no such file"),
        ({"model_type": "smollm3"}, "smollm"),
    ],
)
def test_mistakes_raise_what_the_command_line_says(keywords: dict[str, Any], message: str) -> None:
    given = {"model_type": "smollm2-135m-instruct", "dataset": [EXAMPLES / "data" / "cities.jsonl"], **keywords}
    with pytest.raises(swift.SwiftError) as error:
        swift.sft(**given)
    assert message in str(error.value)


def test_other_calls_refuse_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(swift.SwiftError, match="no rows to answer"):
        swift.infer(model_type="smollm2-135m-instruct")
    with pytest.raises(swift.SwiftError, match="ckpt_dir"):
        swift.merge()
    with pytest.raises(swift.SwiftError, match="nothing to do"):
        swift.export(model_type="smollm2-135m-instruct")
    with pytest.raises(swift.SwiftError), swift.deploy(model_id_or_path=tmp_path):
        pass
    with pytest.raises(swift.SwiftError):
        swift.load(tmp_path / "nothing")
    with pytest.raises(swift.SwiftError, match="a model is named by a text or a path, not int"):
        swift.load(3)  # type: ignore[arg-type]
    with pytest.raises(swift.SwiftError, match="a file of flags, not dict"):
        swift.sft({"model_type": "smollm2-135m-instruct"})  # type: ignore[arg-type]
    with pytest.raises(swift.SwiftError, match="`infer` is no training"):
        swift.check(command="infer", model_type="smollm2-135m-instruct")
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    with pytest.raises(swift.SwiftError, match="NPROC_PER_NODE"):
        swift.sft(model_type="smollm2-135m-instruct", dataset=["self-cognition"])
    assert swift.Run(tmp_path).metrics == {} and swift.Run(tmp_path).best is None
    with pytest.raises(swift.SwiftError, match="no checkpoint"):
        swift.Run(tmp_path).chat()
    with pytest.raises(swift.SwiftError, match="is not a folder"):
        swift.Run(tmp_path / "nothing").chat()


def test_a_file_of_flags_and_pasted_code(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("lora_rank: 4\nlearning_rate: 1e-3\n")
    keywords = {"learning_rate": 1e-2, "an_unknown_one": 3, "ignore_args_error": True}
    parsed = read_call("sft", str(tmp_path / "run.yaml"), keywords)
    assert not parsed.errors and "--an_unknown_one" in parsed.warnings[0]
    assert (parsed.args.values["lora_rank"], parsed.args.values["learning_rate"]) == (4, 1e-2)


def test_another_call_is_told_what_the_first_was_told_once(caplog: pytest.LogCaptureFixture) -> None:
    log.addHandler(caplog.handler)
    try:
        for _ in range(2):
            arguments("sft", None, {"model_type": "smollm2-135m-instruct", "dataset": ["alpaca-en"]})
            for _ in range(2):
                once("the loss is exactly 0")
    finally:
        log.removeHandler(caplog.handler)
    assert caplog.messages.count("the loss is exactly 0") == 2


def test_stubs_name_what_is_there() -> None:
    text = stubs()
    names = {line.split("(")[0].removeprefix("def ") for line in text.splitlines() if line.startswith("def ")}
    names |= {line.split(" as ")[1] for line in text.splitlines() if line.startswith("from swift")}
    assert names | {"__version__"} == set(swift.__all__)
    assert all(getattr(swift, name) is not None for name in names)
    for name, (command, _) in CALLS.items():
        body = text.partition(f"def {name}(")[2].partition(") ->")[0]
        keywords = {line.strip().split(":")[0] for line in body.splitlines() if ":" in line} - {"config"}
        keywords -= {"command", "result_path"} if name == "check" else set()
        assert keywords == set(COMMANDS[command].flags) - set(NOT_KEYWORDS)


def test_importing_swift_and_refusing_a_call_loads_nothing_heavy() -> None:
    code = "import sys, swift\ntry: swift.sft(lerning_rate=1)\nexcept swift.SwiftError: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "numpy", "pydantic", "datasets"}.intersection(done.stdout.split())
