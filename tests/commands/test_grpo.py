"""`swift grpo` from the command line: a step computed again from its record, exact resume, rewards, and refusals."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from swift.cli import main

PLUGIN = """
def even(token_ids):
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in token_ids]

def named(completions, word, **columns):
    assert len(word) == len(completions) and all(isinstance(one, str) for one in word)
    return [None if one == "word 3" else len(text) / 100 for one, text in zip(word, completions)]

def same(completions):
    return [1.0 for _ in completions]

def broken(completions):
    values = [0.0 for _ in completions]
    return values[len(values)]

def short(completions):
    return [1.0]

def nothing(completions):
    return [None for _ in completions]

def infinite(completions):
    return [float("nan") for _ in completions]

class ByLetters:
    def __call__(self, completions, **kwargs):
        return [float(len(text)) for text in completions]
"""


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "prompts.jsonl"
    rows = [{"query": f"Say word {number}", "word": f"word {number}", "solution": str(number)} for number in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "rewards.py"
    path.write_text(PLUGIN)
    return path


def words(output: Path, model: Path, rows: Path, plugin: Path, **values: Any) -> list[str]:
    given = {
        "model_id_or_path": model,
        "dataset": rows,
        "external_plugins": plugin,
        "reward_funcs": "even",
        "output_dir": output,
        "add_output_dir_suffix": "false",
        "max_steps": 6,
        "batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_generations": 4,
        "num_iterations": 2,
        "num_mini_batches": 1,
        "max_completion_length": 5,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "warmup_ratio": 0,
        "weight_decay": 0,
        "logging_steps": 1,
        "save_steps": 3,
        "save_total_limit": -1,
        "report_to": "none",
        "no_cache": "true",
        **values,
    }
    return [
        "grpo",
        *(
            word
            for name, value in given.items()
            if value is not None
            for word in (f"--{name}", *(value if isinstance(value, list) else [str(value)]))
        ),
    ]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def logged(run: Path) -> list[dict[str, Any]]:
    return [line for line in lines(run / "logging.jsonl") if "loss" in line]


def recomputed(rows: list[dict[str, Any]], kind: str, longest: int, beta: float) -> float:
    """The loss of a first step from its record, in plain numbers: there every ratio is 1."""
    by_answer = []
    for row in rows:
        if not row["trained"]:
            continue
        gaps = [ref - own for ref, own in zip(row["ref_log_probs"] or row["log_probs"], row["log_probs"], strict=True)]
        by_answer.append(
            [-a + beta * (math.exp(gap) - gap - 1) for a, gap in zip(row["advantages"], gaps, strict=True)]
        )
    total = sum(map(sum, by_answer))
    if kind == "dapo":
        return total / sum(map(len, by_answer))
    if kind == "dr_grpo":
        return total / (len(by_answer) * longest)
    return sum(sum(losses) / len(losses) for losses in by_answer) / len(by_answer)


def test_a_step_can_be_computed_again_from_the_record_and_a_resumed_run_is_the_same(
    tiny_llama_dir: Path, prompts: Path, plugin: Path, tmp_path: Path
) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    numbers = {"reward_funcs": ["even", "named"], "reward_weights": ["2", "0.5"], "dynamic_sample": "true"}
    assert main(words(whole, tiny_llama_dir, prompts, plugin, **numbers)) == 0
    record, log = lines(whole / "rollouts.jsonl"), logged(whole)
    assert [row["roll_out"] for row in record] == [number for number in range(3) for _ in range(8)]
    for number in range(3):
        rows = record[8 * number : 8 * number + 8]
        for group in (rows[:4], rows[4:]):
            assert len({row["row"] for row in group}) == 1 and len({tuple(row["answer_ids"]) for row in group}) > 1
            scores = [2 * row["rewards"]["even"] + 0.5 * (row["rewards"]["named"] or 0) for row in group]
            assert scores == pytest.approx([row["score"] for row in group])
            mean = sum(scores) / 4
            deviation = math.sqrt(sum((score - mean) ** 2 for score in scores) / 3)
            for row, score in zip(group, scores, strict=True):
                assert row["advantages"] == pytest.approx(
                    [(score - mean) / (deviation + 1e-4)] * len(row["answer_ids"]), rel=1e-6
                )
        assert log[2 * number]["loss"] == pytest.approx(recomputed(rows, "grpo", 5, 0.04), abs=2e-5)
        assert log[2 * number]["ratio"] == pytest.approx(1.0, abs=1e-5)
    assert record[0]["log_probs"] == record[0]["ref_log_probs"] and log[0]["kl"] == 0
    assert record[-1]["log_probs"] != record[-1]["ref_log_probs"] and log[-1]["kl"] > 0
    assert log[0]["reward"] == pytest.approx(sum(row["score"] for row in record[:8]) / 8, rel=1e-4)

    half.mkdir()
    shutil.copytree(whole / "checkpoint-3", half / "checkpoint-3")
    shutil.copy(whole / "rollouts.jsonl", half)
    resumed = words(half, tiny_llama_dir, prompts, plugin, **numbers)
    assert main([*resumed, "--resume_from_checkpoint", str(half / "checkpoint-3")]) == 0
    assert (half / "rollouts.jsonl").read_text() == (whole / "rollouts.jsonl").read_text()
    name = "adapter_model.safetensors"
    one, other = (load_file(folder / "checkpoint-6" / name) for folder in (whole, half))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "dapo"])
def test_how_rows_are_split_changes_nothing(
    kind: str, tiny_llama_dir: Path, prompts: Path, plugin: Path, tmp_path: Path
) -> None:
    results = []
    for size, accumulation in ((8, 1), (2, 4)):
        run = tmp_path / f"{size}"
        shape = {"batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 2, "beta": 0.5}
        rewards = {"loss_type": kind, "overlong_filter": "true", "temperature": 1.5, "reward_funcs": "ByLetters"}
        assert main(words(run, tiny_llama_dir, prompts, plugin, **shape, **rewards)) == 0
        log = logged(run)
        results.append([log[0]["loss"], log[0]["grad_norm"], log[1]["loss"], log[1]["kl"]])
    assert results[0] == pytest.approx(results[1], rel=1e-3, abs=1e-6)


def test_groups_without_variance_are_told_of_and_train_nothing(
    tiny_llama_dir: Path, prompts: Path, plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"reward_funcs": "same", "max_steps": 2, "beta": 0, "log_completions": "true"}
    assert main(words(tmp_path / "run", tiny_llama_dir, prompts, plugin, **given)) == 0
    err = capsys.readouterr().err
    assert "the answers of 2 of 2 prompts all have one reward" in err and "no reference" in err
    assert "reward 1 {'same': 1.0}" in err
    assert "keys not used: the row's own answer (12 rows)" in err
    assert [line["loss"] for line in logged(tmp_path / "run")] == [0.0, 0.0]
    assert {line["frac_reward_zero_std"] for line in logged(tmp_path / "run")} == {1.0}
    left_out = {**given, "dynamic_sample": "true", "max_resample_times": 1}
    assert main(words(tmp_path / "other", tiny_llama_dir, prompts, plugin, **left_out)) == 0
    assert not any(row["trained"] for row in lines(tmp_path / "other" / "rollouts.jsonl"))


def test_a_reward_model_and_functions_add_up(tiny_llama_dir: Path, prompts: Path, plugin: Path, tmp_path: Path) -> None:
    reward = shutil.copytree(tiny_llama_dir, tmp_path / "reward")
    weight = torch.randn(1, 64, generator=torch.Generator().manual_seed(1))
    save_file(
        {"v_head.summary.weight": weight, "v_head.summary.bias": torch.zeros(1)}, reward / "value_head.safetensors"
    )
    given = {"reward_model": reward, "reward_funcs": "even", "reward_weights": ["1", "3"], "max_steps": 1}
    assert main(words(tmp_path / "run", tiny_llama_dir, prompts, plugin, **given)) == 0
    for row in lines(tmp_path / "run" / "rollouts.jsonl"):
        assert row["score"] == pytest.approx(row["rewards"]["even"] + 3 * row["rewards"]["reward_model"])


@pytest.fixture(scope="module")
def model_that_ends(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with so many end tokens that its answers differ in length."""
    folder = shutil.copytree(tiny_llama_dir, tmp_path_factory.mktemp("ends") / "model")
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": list(range(0, 49152, 3))}))
    return folder


@pytest.mark.slow
def test_every_number_of_grpo_counts(model_that_ends: Path, prompts: Path, plugin: Path, tmp_path: Path) -> None:
    def result(name: str, **changes: Any) -> bytes:
        usual = {"max_steps": 3, "learning_rate": 0.05, "max_completion_length": 4, "num_iterations": 3}
        given = {**usual, "reward_funcs": ["even", "soft_overlong"], **changes}
        assert main(words(tmp_path / name, model_that_ends, prompts, plugin, **given)) == 0
        return (tmp_path / name / "checkpoint-3" / "adapter_model.safetensors").read_bytes()

    changes = {
        "beta": 2.0,
        "epsilon": 0.001,
        "epsilon_high": 0.001,
        "scale_rewards": "none",
        "loss_type": "dr_grpo",
        "reward_weights": ["1", "5"],
        "num_generations": 2,
        "num_iterations": 1,
        "num_mini_batches": 2,
        "temperature": 1.5,
        "top_k": 3,
        "overlong_filter": "true",
        "soft_cache_length": 3,
    }
    usual = result("usual")
    idle = [name for name, value in changes.items() if result(name, **{name: value}) == usual]
    assert idle == []
    batch = result("batch", scale_rewards="batch")
    assert batch not in (usual, result("none", scale_rewards="none"))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"reward_funcs": None, "external_plugins": None}, "grpo has no reward"),
    ({"reward_funcs": "evem"}, "there is no reward function 'evem'"),
    ({"reward_funcs": "format"}, "defines none of the functions that --reward_funcs names"),
    ({"reward_weights": ["1", "2"]}, "--reward_weights has 2 weights for 1 rewards"),
    ({"num_generations": "3"}, "cannot be parted into groups of 3"),
    ({"num_generations": "1"}, "--num_generations"),
    ({"temperature": "0"}, "--temperature 0 leaves grpo nothing to explore"),
    ({"kl_coef": "0.1"}, "--kl_coef has no effect on grpo"),
    ({"loss_type": "bnpo"}, "--loss_type bnpo is not a loss of grpo"),
    ({"max_resample_times": "2"}, "--max_resample_times has no effect without --dynamic_sample"),
    ({"soft_cache_length": "2"}, "--soft_cache_length has no effect without the reward soft_overlong"),
    ({"beta": "0", "ref_model_id_or_path": "x"}, "--ref_model_id_or_path has no effect with --beta 0"),
    ({"val_dataset": "x.jsonl"}, "--val_dataset has no effect on grpo"),
]


def test_mistakes_end_before_the_weights_are_loaded(
    tiny_llama_dir: Path, prompts: Path, plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for extra, message in REFUSED:
        assert main(words(tmp_path / "run", tiny_llama_dir, prompts, plugin, **extra)) == 2, message
        err = capsys.readouterr().err
        assert message in err and "Params" not in err
    wrong = tmp_path / "wrong.py"
    for text, where in (
        ("import json\nx = json.lods\n", f"{wrong}:2"),
        ("def f(:\n", f"{wrong}:1"),
        ("import sys\n\nsys.exit(3)\n", f"{wrong}:3"),
    ):
        wrong.write_text(text)
        other = wrong.rename(tmp_path / f"wrong{len(text)}.py")  # a file is run once a process
        assert main(words(tmp_path / "run", tiny_llama_dir, prompts, other)) == 2
        err = capsys.readouterr().err
        assert "the plugin failed" in err and where.replace(str(wrong), str(other)) in err and "Params" not in err


def test_rewards_that_are_none_name_their_line_or_row(
    tiny_llama_dir: Path, prompts: Path, plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = PLUGIN[: PLUGIN.index("return values[")].count("\n") + 1
    for name, message in (
        ("broken", f"{plugin}:{line}"),
        ("short", "gave 1 rewards for 8 answers"),
        ("nothing", "no reward function judges an answer"),
        ("infinite", "is no finite number"),
    ):
        assert main(words(tmp_path / name, tiny_llama_dir, prompts, plugin, reward_funcs=name)) == 2
        assert message in capsys.readouterr().err
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"query": "a", "solution": "1"}\n{"query": "b"}\n')
    given = {"reward_funcs": "accuracy", "external_plugins": None}
    assert main(words(tmp_path / "bare", tiny_llama_dir, bare, plugin, **given)) == 2
    err = capsys.readouterr().err
    assert "needs the column solution or answer" in err and "bare.jsonl:2" in err


def test_a_prompt_of_a_group_is_computed_once_and_nothing_else_changes(
    tmp_path: Path, tiny_llama_dir: Path, plugin: Path
) -> None:
    rows = tmp_path / "prompts.jsonl"
    asked = ({"query": f"Say a word that has as many letters as {number} times itself. " * 2} for number in range(12))
    rows.write_text("".join(json.dumps(row) + "\n" for row in asked))
    for share in ("AUTO", "false"):
        output = tmp_path / share
        assert main(words(output, tiny_llama_dir, rows, plugin, max_steps=3, beta=0.1, share_prompts=share)) == 0
    names = ("loss", "grad_norm", "kl", "ratio", "reward", "completions/mean_length")
    shared, apart = (logged(tmp_path / share) for share in ("AUTO", "false"))
    assert len(shared) == 3
    for mine, theirs in zip(shared, apart, strict=True):
        assert {name: mine[name] for name in names} == pytest.approx(
            {name: theirs[name] for name in names}, rel=1e-3, abs=1e-5
        )
