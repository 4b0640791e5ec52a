"""Faults that keep a run from learning, seeded into real runs and named right; healthy runs without an alarm."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from swift.cli import main
from swift.training.why_not_learning import FILE

pytestmark = pytest.mark.slow

WORDS = ("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "hazel", "indigo", "jade", "koala", "lemon")
REWARDS = """
def same(completions, **_):
    return [0.5 for _ in completions]

def length(completions, **_):
    return [float(len(text) % 7) for text in completions]
"""


def sentence(number: int) -> str:
    return " ".join(random.Random(number).choices(WORDS, k=5))


def question(number: int) -> dict[str, Any]:
    return {"query": f"What comes after {sentence(number)}?", "response": f"{sentence(1000 + number)}."}


def pair(number: int) -> dict[str, Any]:
    return {**question(number), "rejected_response": sentence(2000 + number)}


def labelled(number: int) -> dict[str, Any]:
    return {**question(number), "label": number % 3 != 0}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Case:
    """A folder with files of rows, a tiny model, and a run."""

    def __init__(self, folder: Path, model: Path):
        self.folder, self.model = folder, model
        (folder / "rewards.py").write_text(REWARDS)
        for name, make in (("rows", question), ("pairs", pair), ("labelled", labelled)):
            write(folder / f"{name}.jsonl", [make(number) for number in range(24)])
        write(folder / "others.jsonl", [question(number) for number in range(100, 108)])

    def run(self, line: str) -> int:
        """`line` over defaults that make a short run."""
        words = line.format(folder=self.folder).split()
        common = f"--model_id_or_path {self.model} --output_dir {self.folder / 'run'} --add_output_dir_suffix false"
        common += " --template_type chatml --max_steps 10 --logging_steps 1 --batch_size 4 --learning_rate 1e-3"
        common += " --gradient_accumulation_steps 1 --report_to none --save_strategy no --evaluation_strategy no"
        if words[0] == "grpo":
            common = common.replace("--evaluation_strategy no", "")
        given = set(words)
        rest = common.split()
        for flag, value in zip(rest[::2], rest[1::2], strict=True):
            words += [] if flag in given else [flag, value]
        return main(words)

    @property
    def causes(self) -> list[tuple[int, str]]:
        """(step, cause) of each that the run's folder keeps."""
        file = self.folder / "run" / FILE
        told = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
        return [(line["step"], line["cause"]) for line in told]


@pytest.fixture
def case(tmp_path: Path, tiny_qwen2_dir: Path) -> Case:
    return Case(tmp_path, tiny_qwen2_dir)


def empty_answers(case: Case) -> None:
    write(case.folder / "rows.jsonl", [{**question(number), "response": ""} for number in range(24)])


def one_answer(case: Case) -> None:
    write(case.folder / "rows.jsonl", [{**question(number), "response": "no"} for number in range(24)])


def one_question(case: Case) -> None:
    write(case.folder / "rows.jsonl", [{**question(number), "query": "What is it?"} for number in range(24)])


def two_answers(case: Case) -> None:
    others = [{**question(number), "response": f"never {number}"} for number in range(24)]
    write(case.folder / "rows.jsonl", [*map(question, range(24)), *others])


def template_without_answers(case: Case) -> None:
    """A chat template that renders questions alone."""
    case.model = Path(shutil.copytree(case.model, case.folder / "model"))
    template = "{% for m in messages %}{% if m.role != 'assistant' %}{{ m.content }}\n{% endif %}{% endfor %}"
    (case.model / "chat_template.jinja").write_text(template)


def equal_pairs(case: Case) -> None:
    rows = [{**question(number), "rejected_response": question(number)["response"]} for number in range(24)]
    write(case.folder / "pairs.jsonl", rows)


def with_weight(case: Case, part: str, change: Callable[[torch.Tensor], object]) -> None:
    """Give the case a model whose weight `part` is changed."""
    model = case.folder / "model"
    shutil.copytree(case.model, model)
    weights = load_file(model / "model.safetensors")
    (name,) = (name for name in weights if part in name)
    change(weights[name])
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    case.model = model


def a_token_without_numbers(case: Case) -> None:
    """In one row alone."""
    from transformers import AutoTokenizer

    (token,) = set(AutoTokenizer.from_pretrained(case.model)(" zebra").input_ids[:1])
    with_weight(case, "embed_tokens", lambda weight: weight[token].fill_(torch.nan))
    for name, make in (("rows", question), ("pairs", pair)):
        rows = [make(number) for number in range(24)]
        rows[6]["query"] += " zebra"
        write(case.folder / f"{name}.jsonl", rows)


def a_head_of_zeros(case: Case) -> None:
    with_weight(case, "lm_head", torch.Tensor.zero_)


def an_end_that_is_no_token(case: Case) -> None:
    """Answers of this template end in nothing."""
    (case.folder / "templates.py").write_text(
        "from swift import Template, register_template\n"
        "register_template('endless', Template(prefix=[], prompt=['Q: {{QUERY}} A: '], chat_sep=[' '], suffix=[]))\n"
    )


def validation_with_other_spaces(case: Case) -> None:
    spaced = [
        {"query": f"  {row['query']}".replace(" ", "  "), "response": f"{row['response']} "}
        for row in map(question, range(8))
    ]
    write(case.folder / "others.jsonl", spaced)


def long_answers(case: Case) -> None:
    long = [
        {**question(number), "response": " ".join(map(sentence, range(number, number + 30)))} for number in range(24)
    ]
    write(case.folder / "rows.jsonl", long)


ROWS = "--dataset {folder}/rows.jsonl"
IN_ERROR: dict[str, tuple[Any, str, str]] = {
    "all labels masked": (empty_answers, f"sft {ROWS}", "no row can be used: empty value 24"),
    "a template that writes no answers": (
        template_without_answers,
        f"sft {ROWS} --template_type jinja",
        "next: name a registered template with --template_type if the chat template writes no answers",
    ),
    "an adapter without a gradient": (a_head_of_zeros, f"sft {ROWS}", "gradient of the first step is 0"),
    "a token without numbers": (
        a_token_without_numbers,
        f"sft {ROWS} --dataset_test_ratio 0",
        "where: {folder}/rows.jsonl:7\n",
    ),
    "a token without numbers, packed": (
        a_token_without_numbers,
        f"sft {ROWS} --dataset_test_ratio 0 --packing true --max_length 256",
        "where: {folder}/rows.jsonl:7\n",
    ),
    "a token without numbers, in pairs": (
        a_token_without_numbers,
        "dpo --dataset {folder}/pairs.jsonl --dataset_test_ratio 0",
        "where: {folder}/pairs.jsonl:7\n",
    ),
    "an end that is never trained": (
        an_end_that_is_no_token,
        f"sft {ROWS} --custom_register_path {{folder}}/templates.py --template_type endless",
        "the end of the answer is never trained",
    ),
    "two equal answers in a pair": (equal_pairs, "dpo --dataset {folder}/pairs.jsonl", "no row can be used: identical"),
}
"""What stops a run: seed, command line, and what the error says."""
IN_FOLDER: dict[str, tuple[Any, str, str]] = {
    "a learning rate of 0": (None, f"sft {ROWS} --learning_rate 0", "a learning rate of 0"),
    "identical answers": (one_answer, f"sft {ROWS}", "identical answers"),
    "identical questions": (one_question, f"sft {ROWS}", "identical questions"),
    "contradicting answers": (two_answers, f"sft {ROWS}", "one question with several answers"),
    "validation rows that are trained on": (
        None,
        f"sft {ROWS} --val_dataset {{folder}}/rows.jsonl",
        "evaluation rows inside the training rows",
    ),
    "a model that knows nothing and hardly moves": (
        None,
        f"sft {ROWS} --learning_rate 1e-6 --max_steps 30",
        "a loss at the level of chance",
    ),
    "updates below the precision of bf16": (
        None,
        f"sft {ROWS} --sft_type full --dtype bf16 --learning_rate 1e-6",
        "updates that are lost in rounding",
    ),
    "steps too small to learn": (None, f"sft {ROWS} --learning_rate 1e-9", "steps too small to learn"),
    "steps too small to learn, of all weights": (
        None,
        f"sft {ROWS} --sft_type full --learning_rate 1e-8",
        "steps too small to learn",
    ),
    "a weight decay that eats the model": (
        None,
        f"sft {ROWS} --sft_type full --weight_decay 100 --learning_rate 1e-4 --max_steps 20",
        "a weight decay that shrinks the weights",
    ),
    "a warm-up longer than the run": (None, f"sft {ROWS} --warmup_steps 1000", "a warm-up longer than the run"),
    "a learning rate far too high": (None, f"sft {ROWS} --sft_type full --learning_rate 10", "a loss that grows"),
    "validation rows that are trained on, with other spaces": (
        validation_with_other_spaces,
        f"sft {ROWS} --val_dataset {{folder}}/others.jsonl",
        "evaluation rows inside the training rows",
    ),
    "validation pairs that are trained on": (
        None,
        "dpo --dataset {folder}/pairs.jsonl --val_dataset {folder}/pairs.jsonl",
        "evaluation rows inside the training rows",
    ),
    "answers whose questions are cut off": (
        long_answers,
        f"sft {ROWS} --max_length 40 --truncation_strategy truncation_left",
        "answers without a question",
    ),
    "one reward for every answer": (
        None,
        f"grpo {ROWS} --external_plugins {{folder}}/rewards.py --reward_funcs same --max_completion_length 8 "
        "--num_generations 4",
        "rewards without variance",
    ),
}
"""What a run goes on with: the cause in its folder."""


@pytest.mark.parametrize("name", IN_ERROR)
def test_a_fault_that_stops_a_run_is_named(name: str, case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    seed, line, said = IN_ERROR[name]
    if seed is not None:
        seed(case)
    code = case.run(line)
    assert code in (1, 2) and said.format(folder=case.folder) in capsys.readouterr().err


@pytest.mark.parametrize("name", IN_FOLDER)
def test_a_fault_that_a_run_goes_on_with_is_named(name: str, case: Case) -> None:
    seed, line, cause = IN_FOLDER[name]
    if seed is not None:
        seed(case)
    assert case.run(line) == 0
    ((step, named),) = case.causes
    assert named == cause and step <= (25 if "chance" in cause else 7)


HEALTHY = {
    "lora": f"sft {ROWS} --val_dataset {{folder}}/others.jsonl",
    "full": f"sft {ROWS} --sft_type full --learning_rate 1e-4",
    "packed": f"sft {ROWS} --packing true --max_length 128",
    "warm-up over the whole run": f"sft {ROWS} --warmup_steps 10",
    "cosine to its end": f"sft {ROWS} --lr_scheduler_type cosine",
    "a hundred steps from chance": f"sft {ROWS} --max_steps 100 --learning_rate 1e-3",
    "rank 1": f"sft {ROWS} --lora_rank 1 --max_steps 40",
    "a usual weight decay at a high rate": f"sft {ROWS} --sft_type full --learning_rate 1e-2 --max_steps 60",
    "all weights at a millionth": f"sft {ROWS} --sft_type full --learning_rate 1e-6",
    "adalora from chance, whose regularizer is large": f"sft {ROWS} --sft_type adalora --max_steps 12",
    "ia3": f"sft {ROWS} --sft_type ia3 --learning_rate 1e-4",
    "galore": f"sft {ROWS} --sft_type full --use_galore true --galore_rank 8 --learning_rate 1e-4",
    "adafactor": f"sft {ROWS} --sft_type full --optim adafactor --learning_rate 1e-5",
    "much dropout": f"sft {ROWS} --lora_dropout 0.5 --max_steps 30",
    "half of it warm-up": f"sft {ROWS} --warmup_ratio 0.5 --max_steps 60",
    "single rows": f"sft {ROWS} --batch_size 1 --max_steps 40",
    "bf16 at its usual rate": f"sft {ROWS} --sft_type full --dtype bf16 --learning_rate 1e-5",
    "pt": f"pt {ROWS} --learning_rate 1e-4",
    "dpo": "dpo --dataset {folder}/pairs.jsonl --max_steps 60",
    "orpo": "orpo --dataset {folder}/pairs.jsonl",
    "kto": "kto --dataset {folder}/labelled.jsonl",
    "rm": "rlhf --rlhf_type rm --dataset {folder}/pairs.jsonl",
    "grpo": f"grpo {ROWS} --external_plugins {{folder}}/rewards.py --reward_funcs length --max_completion_length 16 "
    "--num_generations 4 --temperature 1.0",
}


@pytest.mark.parametrize("name", HEALTHY)
def test_no_alarm_in_a_healthy_run(name: str, case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert case.run(HEALTHY[name]) == 0
    assert case.causes == []
    assert "why it may not learn" not in capsys.readouterr().err
