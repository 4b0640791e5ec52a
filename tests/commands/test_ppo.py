"""`swift ppo` from the command line: learning, its record, exact resume, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from swift.cli import main


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"query": f"Say word {number}"}) + "\n" for number in range(20)))
    return path


@pytest.fixture(scope="module")
def reward_model(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a random value head."""
    folder = shutil.copytree(tiny_llama_dir, tmp_path_factory.mktemp("reward") / "model")
    weight = torch.randn(1, 64, generator=torch.Generator().manual_seed(1))
    save_file(
        {"v_head.summary.weight": weight, "v_head.summary.bias": torch.zeros(1)}, folder / "value_head.safetensors"
    )
    return folder


def words(output: Path, model: Path, rows: Path, reward: Path, **values: Any) -> list[str]:
    given = {
        "model_id_or_path": model,
        "dataset": rows,
        "reward_model_id_or_path": reward,
        "output_dir": output,
        "add_output_dir_suffix": "false",
        "max_steps": 6,
        "batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_ppo_epochs": 2,
        "num_mini_batches": 1,
        "max_new_tokens": 6,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "warmup_ratio": 0,
        "logging_steps": 1,
        "save_steps": 3,
        "save_total_limit": -1,
        "report_to": "none",
        "no_cache": "true",
        **values,
    }
    return ["ppo", *(word for name, value in given.items() for word in (f"--{name}", str(value)))]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def recomputed(rows: list[dict[str, Any]], *, kl_coef: float, gamma: float, lam: float) -> list[dict[str, Any]]:
    """Advantages and returns of a roll-out from its record, fp64, with whitened rewards, by the formulas of
    arXiv 1707.06347 (equations 11 and 12) and 1909.08593 (equation 2)."""
    rewards = [
        [-kl_coef * (own - ref) for own, ref in zip(row["log_probs"], row["ref_log_probs"], strict=True)]
        for row in rows
    ]
    for row, values in zip(rows, rewards, strict=True):
        values[-1] += row["score"]
    mean, deviation = np.mean(np.concatenate(rewards)), np.std(np.concatenate(rewards), ddof=1)
    results = []
    for row, values in zip(rows, rewards, strict=True):
        reward, value = (np.array(values) - mean) / deviation + mean, np.array(row["values"])
        delta = reward + gamma * np.append(value[1:], 0.0) - value
        later = [[(gamma * lam) ** (k - t) * (k >= t) for k in range(len(delta))] for t in range(len(delta))]
        advantage = np.array(later) @ delta
        results.append({"advantages": advantage, "returns": advantage + value})
    everything = np.concatenate([one["advantages"] for one in results])
    for one in results:
        one["advantages"] = (one["advantages"] - everything.mean()) / everything.std(ddof=1)
    return results


def test_a_step_can_be_computed_again_from_the_record_and_a_resumed_run_is_the_same(
    tiny_llama_dir: Path, prompts: Path, reward_model: Path, tmp_path: Path
) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    numbers = {"kl_coef": 0.3, "whiten_rewards": "true", "gamma": 0.9, "lam": 0.8, "missing_eos_penalty": 1.5}
    run = words(whole, tiny_llama_dir, prompts, reward_model, **numbers)
    assert main(run) == 0
    record = lines(whole / "rollouts.jsonl")
    logged = [line for line in lines(whole / "logging.jsonl") if "loss" in line]
    assert [row["roll_out"] for row in record] == [number for number in range(3) for _ in range(8)]
    for number in range(3):
        rows = record[8 * number : 8 * number + 8]
        results = recomputed(rows, kl_coef=0.3, gamma=0.9, lam=0.8)
        for row, result in zip(rows, results, strict=True):
            for name, values in result.items():
                np.testing.assert_allclose(row[name], values, rtol=1e-4, atol=1e-5)
        # At the first step on a roll-out policy and values are the old ones: every ratio is 1 and nothing is clipped.
        policy = -np.concatenate([one["advantages"] for one in results]).mean()
        errors = [one["returns"] - np.array(row["values"]) for one, row in zip(results, rows, strict=True)]
        value = 0.5 * np.square(np.concatenate(errors)).mean()
        first = logged[2 * number]
        np.testing.assert_allclose(first["loss/policy_avg"], policy, atol=2e-5)
        np.testing.assert_allclose(first["loss/value_avg"], value, rtol=1e-4)
        np.testing.assert_allclose(first["loss"], policy + 0.1 * value, rtol=1e-4, atol=2e-5)
    assert all(row["log_probs"] == row["ref_log_probs"] for row in record[:8])
    assert not any(row["log_probs"] == row["ref_log_probs"] for row in record[16:])

    half.mkdir()
    shutil.copytree(whole / "checkpoint-3", half / "checkpoint-3")
    shutil.copy(whole / "rollouts.jsonl", half)  # as if killed after the third roll-out, in the middle of a line
    with (half / "rollouts.jsonl").open("a") as file:
        file.write('{"roll_out": 3, "pl')
    resumed = words(half, tiny_llama_dir, prompts, reward_model, **numbers)
    assert main([*resumed, "--resume_from_checkpoint", str(half / "checkpoint-3")]) == 0
    assert (half / "rollouts.jsonl").read_text() == (whole / "rollouts.jsonl").read_text()
    for name in ("adapter_model.safetensors", "critic.safetensors"):
        one, other = (load_file(folder / "checkpoint-6" / name) for folder in (whole, half))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_every_number_of_ppo_counts(tiny_llama_dir: Path, prompts: Path, reward_model: Path, tmp_path: Path) -> None:
    def result(name: str, **changes: Any) -> bytes:
        run = tmp_path / name
        usual = {"max_steps": 3, "gradient_accumulation_steps": 1, "learning_rate": 0.05, "max_new_tokens": 3}
        assert main(words(run, tiny_llama_dir, prompts, reward_model, **{**usual, **changes})) == 0
        return (run / "checkpoint-3" / "adapter_model.safetensors").read_bytes()

    changes = {
        "kl_coef": 5.0,
        "gamma": 0.5,
        "lam": 0.1,
        "cliprange": 0.01,
        "cliprange_value": 100.0,
        "vf_coef": 3.0,
        "whiten_rewards": "true",
        "missing_eos_penalty": 2.0,
        "num_ppo_epochs": 1,
        "num_mini_batches": 2,
        "temperature": 1.3,
        "top_k": 2,
    }
    usual = result("usual")
    idle = [name for name, value in changes.items() if result(name, **{name: value}) == usual]
    assert idle == []


REFUSED = [
    (["--temperature", "0"], "--temperature 0 leaves ppo nothing to explore"),
    (["--dataset_test_ratio", "0.1"], "--dataset_test_ratio has no effect on ppo"),
    (["--beta", "0.2"], "--beta has no effect on ppo"),
    (["--precompute_ref_log_probs", "true"], "does not work with ppo"),
    (["--metric_for_best_model", "acc"], "does not tell the best checkpoint of ppo"),
    (["--cliprange", "0"], "--cliprange"),
]


@pytest.mark.parametrize(("extra", "message"), REFUSED)
def test_mistakes_end_before_the_weights_are_loaded(
    extra: list[str],
    message: str,
    tiny_llama_dir: Path,
    prompts: Path,
    reward_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*words(tmp_path / "run", tiny_llama_dir, prompts, reward_model), *extra]) == 2
    err = capsys.readouterr().err
    assert message in err and "Params" not in err


def test_a_reward_model_needs_a_head(
    tiny_llama_dir: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tmp_path / "run", tiny_llama_dir, prompts, tiny_llama_dir)) == 2
    assert "is not a reward model" in capsys.readouterr().err
    given = words(tmp_path / "run", tiny_llama_dir, prompts, tiny_llama_dir)
    at = given.index("--reward_model_id_or_path")
    assert main([*given[:at], *given[at + 2 :]]) == 2
    assert "ppo has no reward model" in capsys.readouterr().err
