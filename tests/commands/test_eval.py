"""`swift eval` from the command line: answers one can check, a kill that costs nothing, a server like the model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from serving.conftest import servers
from swift.catalog import load_catalog
from swift.cli import main
from swift.engines.torch import TorchEngine
from swift.plan.prompt import PromptPlan
from swift.prompts.encode import build_encoder

CHOICES = "id,question,A,B,C,answer\n" + "".join(
    f"{n},Which word is number {n}?,one {n},two,three,{'ABC'[n % 3]}\n" for n in range(6)
)
OPEN = [{"query": "Say hello", "response": "hello"}, {"question": "And bye?", "answer": ["bye", "farewell"]}]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Six choices with a solved one, and two open questions."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "words_val.csv").write_text(CHOICES)
    (folder / "words_dev.csv").write_text("question,A,B,answer\nWhich is a number?,two,tree,A\n")
    (folder / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in OPEN))
    suites = [
        {"name": "words", "pattern": "ceval", "dataset": "own", "subset_list": ["words"]},
        {"name": "talk", "pattern": "general_qa", "dataset": "own", "subset_list": ["talk"]},
    ]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(suites))
    return path


def evaluate(config: Path, *words: str) -> tuple[Path, list[dict[str, Any]], dict[str, Any]]:
    """Run the command -> the newest run's folder, its questions and its report."""
    output = config.parent / "out"
    arguments = ["eval", "--custom_eval_config", str(config), "--eval_output_dir", str(output), *words]
    assert main([*arguments, "--max_new_tokens", "8"]) == 0
    folder = max((output / "default").iterdir())
    questions = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
    return folder, questions, json.loads((folder / "report.json").read_text())


def log_prob(model: torch.nn.Module, prompt: Sequence[int], tokens: Sequence[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0].log_softmax(-1)
    return sum(logits[len(prompt) - 1 + at, token].item() for at, token in enumerate(tokens))


def test_the_numbers_are_those_of_transformers(
    tiny_llama_dir: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, questions, report = evaluate(config, "--model_id_or_path", str(tiny_llama_dir), "--template_type", "qwen")
    assert [question["id"] for question in questions] == [*"012345", "1", "2"]
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    for question in questions:
        assert question["origin"].endswith(
            ("words_val.csv:" if "options" in question else "talk.jsonl:") + question["origin"].rsplit(":")[-1]
        )
        (message,) = question["prompt"]
        text = (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            f"<|im_start|>user\n{message['content']}<|im_end|>\n<|im_start|>assistant\n"
        )
        prompt = tokenizer.encode(text, add_special_tokens=False)
        answer = question["answer"]
        ids = torch.tensor([prompt])
        written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        assert answer["generated"] == tokenizer.decode(written[0, len(prompt) :]).removesuffix("<|im_end|>")
        if "options" in question:
            assert "Which is a number?\nA. two\nB. tree\nAnswer: A\n\n" in message["content"]
            for letter, option in question["options"].items():
                ids = tokenizer.encode(option, add_special_tokens=False)
                assert answer["letter"][letter] == pytest.approx(
                    log_prob(model, prompt, tokenizer.encode(letter, add_special_tokens=False)), abs=1e-3
                )
                assert answer["text"][letter] * len(option) == pytest.approx(log_prob(model, prompt, ids), abs=1e-3)
            right = max(answer["letter"], key=answer["letter"].get) == question["right"]
            assert question["scores"]["letter"] == right
    shown = capsys.readouterr().out
    (row,) = (row for row in report["results"] if row["metric"] == "letter")
    assert row["n"] == 6 and row["is_score"]
    assert row["low"] <= row["mean"] <= row["high"] and row["low"] < row["high"]
    assert row["mean"] == pytest.approx(sum(question["scores"].get("letter", 0) for question in questions) / 6)
    assert "letter*" in shown and "exact*" in shown and "*: what counts as the score" in shown
    assert "Which word is number 3?" in (folder / "report.html").read_text()


def test_a_killed_run_asks_only_the_rest(
    tiny_llama_dir: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model_id_or_path", str(tiny_llama_dir), "--template_type", "qwen", "--eval_use_cache", "true"]
    folder, before, _ = evaluate(config, *words)
    lines = (folder / "questions.jsonl").read_text().splitlines(keepends=True)
    (folder / "questions.jsonl").write_text("".join(lines[:5]) + lines[5][:40])
    capsys.readouterr()
    _, after, _ = evaluate(config, *words)
    assert after[:5] == before[:5]
    # What shares a pass decides the last digits.
    assert [(q["key"], q["scores"], q["answer"]["generated"]) for q in after] == [
        (q["key"], q["scores"], q["answer"]["generated"]) for q in before
    ]
    shown = capsys.readouterr().err
    assert "5 of 8 questions were answered before" in shown and "3 of 3 questions answered" in shown
    _, again, _ = evaluate(config, *words)
    assert again == after
    shown = capsys.readouterr().err
    assert "8 of 8 questions were answered before" in shown and "requests run" not in shown  # no weights were loaded
    _, other, _ = evaluate(config, *words, "--eval_limit", "[2:4]", "--temperature", "0.5", "--do_sample", "true")
    assert [question["id"] for question in other] == ["2", "3"]
    assert "answered before" not in capsys.readouterr().err


def test_two_runs_compared(tiny_llama_dir: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model_id_or_path", str(tiny_llama_dir), "--template_type", "qwen"]
    folder, before, _ = evaluate(config, *words)
    changed = [{**q, "scores": {**q["scores"], "letter": 1 - q["scores"]["letter"]}} for q in before if "options" in q]
    (folder / "questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in changed))
    _, _, report = evaluate(config, *words, "--compare", str(folder))
    comparison = report["comparison"]
    assert (comparison["only_now"], comparison["only_before"]) == (2, 0)
    (letter,) = (change for change in comparison["changes"] if change["metric"] == "letter")
    assert len(letter["better"]) + len(letter["worse"]) == letter["n"] == 6
    assert "compared with" in capsys.readouterr().out


def picked(question: dict[str, Any], name: str) -> str:
    values = question["answer"][name]
    return max(values, key=values.get)


def test_a_server_answers_like_the_model_it_serves(tiny_llama_dir: Path, config: Path) -> None:
    model = ["--model_id_or_path", str(tiny_llama_dir), "--template_type"]
    _, chat, _ = evaluate(config, *model, "qwen")
    _, plain, _ = evaluate(config, *model, "default-generation")
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    encoder = build_encoder(PromptPlan(template_type="qwen"), tokenizer, load_catalog())
    load = partial(AutoModelForCausalLM.from_pretrained, tiny_llama_dir, dtype=torch.float32)
    with servers(tokenizer, encoder) as start:
        engine: Any = TorchEngine(load, tokenizer)
        url = start(engine).url
        _, chat_there, report = evaluate(config, "--eval_url", url)
        _, plain_there, other = evaluate(config, "--eval_url", url, "--eval_is_chat_model", "false")
    assert report["errors"] == other["errors"] == []
    for here, there in ((chat, chat_there), (plain, plain_there)):
        for one, same in zip(here, there, strict=True):
            assert one["answer"]["generated"] == same["answer"]["generated"]
            if "options" in one:
                assert picked(one, "letter") == picked(same, "letter")
    for one, same in zip(plain, plain_there, strict=True):
        for name in ("letter", "text") if "options" in one else ():
            assert same["answer"][name] == pytest.approx(one["answer"][name], abs=1e-3)
        assert same["scores"] == one["scores"]


def test_what_does_not_go_together(
    tiny_llama_dir: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model_id_or_path", str(tiny_llama_dir), "--template_type", "qwen"]
    own = ["--custom_eval_config", str(config)]
    for words, expected in (
        (model, "--custom_eval_config"),
        ([*model, *own, "--eval_limit", "five"], "--eval_limit"),
        ([*model, *own, "--eval_limit", "[3:2]"], "--eval_limit"),
        ([*model, *own, "--compare", str(tmp_path)], "--compare"),
        (["--eval_url", "http://127.0.0.1:9", *own, "--choice_scores", "text"], "--choice_scores"),
        (["--eval_url", "http://127.0.0.1:9", *own, "--deploy_timeout", "1"], "cannot be reached"),
        ([*model, *own, "--eval_output_dir", str(config)], "--eval_output_dir"),
    ):
        assert main(["eval", *words]) == 2
        assert expected in capsys.readouterr().err


@pytest.mark.parametrize("columns", [None, {"asked": "query", "said": "response"}])
def test_questions_in_the_training_rows_are_named(
    columns: dict[str, str] | None,
    tiny_llama_dir: Path,
    config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Rows are found from another folder than the training was started in, by its own names of columns."""
    query, response = columns or ("query", "response")
    asked = [{query: "Other", response: "x"}, {query: "Say hello", response: "hello"}]
    (tmp_path / "run").mkdir()
    (tmp_path / "trained.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    (tmp_path / "run" / "environment.json").write_text(json.dumps({"working folder": str(tmp_path)}))
    checkpoint = shutil.copytree(tiny_llama_dir, tmp_path / "run" / "checkpoint-1")
    saved = {"sft_type": "full", "template_type": "qwen", "dataset": ["trained.jsonl"], "columns": columns}
    (checkpoint / "sft_args.json").write_text(json.dumps(saved))
    _, _, report = evaluate(config, "--ckpt_dir", str(checkpoint), "--choice_scores", "letter")
    (seen,) = report["seen_in_training"]
    assert seen["question"].endswith("talk.jsonl:1") and seen["row"].endswith("trained.jsonl:2")
    assert "questions that stand in the training rows: 1" in capsys.readouterr().err
    if columns is not None:
        (checkpoint / "sft_args.json").write_text(json.dumps({**saved, "columns": None}))
        _, _, report = evaluate(config, "--ckpt_dir", str(checkpoint), "--choice_scores", "letter")
        assert report["seen_in_training"] is None and "was not checked: none of them can" in capsys.readouterr().err
