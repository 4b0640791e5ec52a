"""`swift eval --eval_dataset`: the numbers of each question are those of lm-evaluation-harness with its own model."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from serving.conftest import servers
from swift.catalog import load_catalog
from swift.catalog.read import benchmark_names
from swift.cli import main
from swift.engines.torch import TorchEngine
from swift.plan.prompt import PromptPlan
from swift.prompts.encode import build_encoder

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.filterwarnings("ignore")  # the harness and its packages warn where they are imported

COLOURS = ("red", "green", "blue", "white")
ROWS = [
    {"question": f"Which colour has thing number {n}?", "choices": list(COLOURS[: 2 + n % 3]), "answer": n % 2}
    for n in range(7)
]
TASKS = {
    "colours": """output_type: multiple_choice
fewshot_split: train
num_fewshot: 2
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "last": """output_type: loglikelihood
doc_to_text: "{{question}} It is"
doc_to_target: " {{choices[0]}}"
metric_list: [{metric: perplexity}, {metric: acc}]
""",
    "whole": """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
""",
    "free": """output_type: generate_until
doc_to_text: "{{question}} "
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match}]
""",
}


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with four tasks, one of each kind, on rows beside them."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name, body in TASKS.items():
        data = (
            f"dataset_path: json\ndataset_kwargs: {{data_files: {{train: {rows}, test: {rows}}}}}\ntest_split: test\n"
        )
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{data}{body}")
    return folder


def evaluate(output: Path, *words: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    assert main(["eval", "--eval_output_dir", str(output), "--dtype", "fp32", *words]) == 0
    folder = max((output / "default").iterdir())
    questions = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
    assert "Which colour has thing number" in (folder / "report.html").read_text()
    return questions, json.loads((folder / "report.json").read_text())


def by_the_harness(model: Path, tasks: Path, **options: Any) -> dict[str, Any]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    arguments = {"pretrained": str(model), "dtype": "float32"}
    results = lm_eval.simple_evaluate(
        "hf", arguments, list(TASKS), device="cpu", task_manager=manager, bootstrap_iters=0, **options
    )
    assert results is not None
    return results


def test_the_numbers_are_those_of_the_harness(tiny_llama_dir: Path, tasks: Path, tmp_path: Path) -> None:
    model = ["--model_id_or_path", str(tiny_llama_dir), "--template_type", "default-generation"]
    questions, report = evaluate(tmp_path / "out", *model, "--eval_dataset", str(tasks))
    theirs = by_the_harness(tiny_llama_dir, tasks)
    assert len(questions) == len(TASKS) * len(ROWS)
    for question in questions:
        (sample,) = (s for s in theirs["samples"][question["subset"]] if str(s["doc_id"]) == question["id"])
        for response, (expected,) in zip(question["answer"]["responses"], sample["resps"], strict=True):
            if isinstance(expected, str):
                assert response == expected
            else:
                assert response == pytest.approx(list(expected) if isinstance(expected, tuple) else expected, abs=1e-3)
    rows = {(row["subset"], row["metric"]): row for row in report["results"]}
    for name in TASKS:
        for key, value in theirs["results"][name].items():
            metric, _, kind = key.partition(",")
            if kind == "none" and not metric.endswith("_stderr"):
                row = rows[name, metric]
                assert row["n"] == len(ROWS)
                assert row["mean"] == pytest.approx(value, rel=1e-3)
    assert rows["colours", "acc"]["is_share"] and rows["colours", "acc"]["low"] < rows["colours", "acc"]["high"]
    assert not rows["whole", "word_perplexity"]["is_share"]


def test_a_killed_run_asks_only_the_rest(
    tiny_llama_dir: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model_id_or_path", str(tiny_llama_dir), "--template_type", "default-generation"]
    words += ["--eval_dataset", str(tasks / "colours.yaml"), str(tasks / "free.yaml"), "--eval_use_cache", "true"]
    before, _ = evaluate(tmp_path / "out", *words)
    (folder,) = (tmp_path / "out" / "default").iterdir()
    lines = (folder / "questions.jsonl").read_text().splitlines(keepends=True)
    (folder / "questions.jsonl").write_text("".join(lines[:9]) + lines[9][:40])
    capsys.readouterr()
    after, report = evaluate(tmp_path / "out", *words)
    shown = capsys.readouterr().err
    assert "7 of 7 questions were answered before" in shown and "2 of 7 questions were answered before" in shown
    assert [(q["key"], q["scores"]) for q in after] == [(q["key"], q["scores"]) for q in before]
    _, same = evaluate(tmp_path / "out", *words)
    assert same["results"] == report["results"]
    assert "questions answered" not in capsys.readouterr().err  # no weights were loaded
    part, _ = evaluate(tmp_path / "out", *words, "--eval_limit", "[2:5]", "--eval_few_shot", "1")
    assert [question["id"] for question in part] == ["2", "3", "4"] * 2
    assert part[0]["prompt"].count("Which colour") == 2


def test_a_chat_model_gets_turns(tiny_llama_dir: Path, tasks: Path, tmp_path: Path) -> None:
    words = ["--model_id_or_path", str(tiny_llama_dir), "--template_type", "qwen", "--eval_limit", "2"]
    words += ["--eval_dataset", str(tasks / "colours.yaml"), str(tasks / "free.yaml")]
    questions, _ = evaluate(tmp_path / "out", *words)
    assert [turn["role"] for turn in questions[0]["prompt"]] == ["user", "assistant", "user", "assistant", "user"]
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    turns = [{"role": "system", "content": "You are a helpful assistant."}, *questions[0]["prompt"]]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    for text, (value, _) in zip(questions[0]["answer"]["texts"], questions[0]["answer"]["responses"], strict=True):
        ids = tokenizer.encode(text, add_special_tokens=False)
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *ids]])).logits[0].log_softmax(-1)
        expected = sum(logits[len(prompt) - 1 + at, token].item() for at, token in enumerate(ids))
        assert value == pytest.approx(expected, abs=1e-3)


def test_a_group_of_tasks(tiny_llama_dir: Path, tasks: Path, tmp_path: Path) -> None:
    group = "group: pair\ntask: [colours, free]\naggregate_metric_list:\n"
    group += "  - {metric: acc, weight_by_size: true, filter_list: none}\n"
    (tasks / "pair.yaml").write_text(group)
    words = ["--model_id_or_path", str(tiny_llama_dir), "--template_type", "default-generation", "--eval_limit", "2"]
    questions, report = evaluate(tmp_path / "out", *words, "--eval_dataset", str(tasks / "pair.yaml"))
    assert [question["subset"] for question in questions] == ["colours"] * 2 + ["free"] * 2
    assert [row["subset"] for row in report["results"]] == [None, "colours", "colours", "free"]
    whole, colours = (row for row in report["results"] if row["metric"] == "acc")
    assert (whole["mean"], whole["n"]) == (colours["mean"], colours["n"])


def test_a_server_is_asked_like_the_model_it_serves(
    tiny_llama_dir: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["--eval_dataset", str(tasks / "colours.yaml"), str(tasks / "free.yaml")]
    here, report = evaluate(
        tmp_path / "here", "--model_id_or_path", str(tiny_llama_dir), "--template_type", "default-generation", *both
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama_dir)
    encoder = build_encoder(PromptPlan(template_type="qwen"), tokenizer, load_catalog())
    load = partial(AutoModelForCausalLM.from_pretrained, tiny_llama_dir, dtype=torch.float32)
    with servers(tokenizer, encoder) as start:
        engine: Any = TorchEngine(load, tokenizer)
        url = ["--eval_url", start(engine).url]
        there, other = evaluate(tmp_path / "there", *url, "--eval_is_chat_model", "false", *both)
        chat, _ = evaluate(tmp_path / "chat", *url, "--eval_dataset", str(tasks / "free.yaml"))
        for words, expected in (
            (both, "--eval_is_chat_model false"),
            (["--eval_is_chat_model", "false", "--eval_dataset", str(tasks / "whole.yaml")], "not its URL"),
        ):
            assert main(["eval", *url, *words, "--eval_output_dir", str(tmp_path / "no")]) == 2
            assert expected in capsys.readouterr().err
    for one, same in zip(here, there, strict=True):
        for response, expected in zip(same["answer"]["responses"], one["answer"]["responses"], strict=True):
            assert response == (expected if isinstance(expected, str) else pytest.approx(expected, abs=1e-3))
    assert [row["mean"] for row in other["results"]] == pytest.approx([row["mean"] for row in report["results"]])
    assert [question["id"] for question in chat] == [str(number) for number in range(len(ROWS))]


def test_what_cannot_be_asked(
    tiny_llama_dir: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colours = (tasks / "colours.yaml").read_text()
    broken = {
        "nodata": colours.replace("rows.jsonl", "nowhere.jsonl"),
        "nocolumn": colours.replace("{{question}}", "{{question | nofilter}}"),
        "notyaml": "task: [",
        "empty": "",
        "kind": colours.replace("multiple_choice", "multiple_choices"),
        "unsafe": colours + "unsafe_code: true\n",
        "images": colours + "doc_to_image: image\n",
    }
    for name, text in broken.items():
        (tmp_path / f"{name}.yaml").write_text(text.replace("task: colours", f"task: {name}"))
    model = ["--model_id_or_path", str(tiny_llama_dir), "--template_type", "default-generation"]
    for words, expected in (
        *((["--eval_dataset", str(tmp_path / f"{name}.yaml")], f"{name}") for name in broken),
        (["--eval_dataset", str(tasks), "--eval_limit", "[50:60]"], "--eval_limit"),
        (["--eval_dataset", "hellaswagg"], "hellaswag?"),
        (["--eval_dataset", str(tasks), str(tasks / "last.yaml")], "last"),
    ):
        assert main(["eval", *model, "--eval_output_dir", str(tmp_path / "out"), *words]) == 2, words
        shown = capsys.readouterr().err
        assert expected in shown and "Traceback" not in shown


def test_every_name_leads_to_a_task() -> None:
    from lm_eval.tasks import TaskManager

    index = TaskManager().task_index
    tasks, nearest = benchmark_names()
    assert [task for task in (*tasks.values(), *nearest.values()) if task not in index] == []
