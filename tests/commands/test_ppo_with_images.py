"""`swift ppo` on rows with images: policy, reference, critic and reward model see them."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.commands.test_multimodal_learning import COLOURS, write_squares
from tests.commands.test_ppo import lines, recomputed
from tests.commands.test_rlhf_with_images import BOTH, Oracle, other, tiny, write_rows
from tests.fixtures.tiny_multimodal import write_tiny

from swift.cli import main

__all__ = ["other", "tiny"]
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
HEAD = ("v_head.summary.weight", "v_head.summary.bias")


def with_head(model: Path, folder: Path) -> Path:
    """A reward model: the model with a random head."""
    shutil.copytree(model, folder)
    weight = torch.randn(1, 64, generator=torch.Generator().manual_seed(1))
    save_file({HEAD[0]: weight, HEAD[1]: torch.full((1,), 0.5)}, folder / "value_head.safetensors")
    return folder


def words(command: str, model_type: str, model: Path, rows: Path, output: Path, **more: Any) -> list[str]:
    given = {
        "model_type": model_type,
        "model_id_or_path": model,
        "dataset": rows,
        "output_dir": output,
        "add_output_dir_suffix": "false",
        "gradient_accumulation_steps": 1,
        "lr_scheduler_type": "constant",
        "warmup_ratio": 0,
        "logging_steps": 1,
        "report_to": "none",
        **more,
    }
    return [command, *(word for name, value in given.items() for word in (f"--{name}", str(value)))]


def head_on(states: torch.Tensor, head: dict[str, torch.Tensor]) -> list[float]:
    return (states @ head[HEAD[0]][0] + head[HEAD[1]]).tolist()


@BOTH
def test_every_number_is_that_of_the_images(
    model_type: str, tiny: dict[str, Path], other: dict[str, Path], tmp_path: Path
) -> None:
    rows, reward = write_rows(tmp_path), with_head(other[model_type], tmp_path / "reward")
    run = tmp_path / "output"
    own = {"reward_model_id_or_path": reward, "max_new_tokens": 6, "temperature": 1, "num_ppo_epochs": 1}
    own |= {"batch_size": 4, "max_steps": 2, "save_steps": 1, "learning_rate": 0.01, "vf_coef": 1, "kl_coef": 0.3}
    own |= {"whiten_rewards": "true", "gamma": 0.9, "lam": 0.8, "local_rollout_forward_batch_size": 3}
    assert main(words("ppo", model_type, tiny[model_type], rows, run, **own)) == 0
    read, record = lines(rows), lines(run / "rollouts.jsonl")
    logged = [line for line in lines(run / "logging.jsonl") if "loss" in line]
    assert [row["roll_out"] for row in record] == [0] * 4 + [1] * 4
    trained, head = run / "checkpoint-1", load_file(reward / "value_head.safetensors")
    judge, start = Oracle(model_type, other[model_type]), Oracle(model_type, tiny[model_type])
    later = Oracle(model_type, tiny[model_type], trained)
    critics = [{HEAD[0]: torch.zeros(1, 64), HEAD[1]: torch.zeros(1)}, load_file(trained / "critic.safetensors")]
    for answer in record:
        row, before, after = read[answer["row"]], answer["prompt_ids"], answer["answer_ids"]
        policy, critic = (start, later)[answer["roll_out"]], critics[answer["roll_out"]]
        log_probs = policy.of_ids(row, tmp_path, before, after)
        assert answer["engine_log_probs"] == pytest.approx(log_probs, abs=1e-4)
        assert answer["log_probs"] == pytest.approx(log_probs, abs=1e-4)
        assert answer["ref_log_probs"] == pytest.approx(start.of_ids(row, tmp_path, before, after), abs=1e-4)
        values = head_on(policy.hidden(row, tmp_path, before + after), critic)[len(before) - 1 : -1]
        assert answer["values"] == pytest.approx(values, abs=1e-4)
        score = head_on(judge.hidden(row, tmp_path, before + after), head)[-1]
        assert answer["score"] == pytest.approx(score, abs=1e-4)
    assert max(abs(value) for answer in record[4:] for value in answer["values"]) > 0.01
    for number, first in enumerate(logged):
        some = record[4 * number : 4 * number + 4]
        results = recomputed(some, kl_coef=0.3, gamma=0.9, lam=0.8)
        for row, result in zip(some, results, strict=True):
            for name, expected in result.items():
                np.testing.assert_allclose(row[name], expected, rtol=1e-3, atol=1e-4)
        policy_loss = -np.concatenate([one["advantages"] for one in results]).mean()
        errors = [one["returns"] - np.array(row["values"]) for one, row in zip(results, some, strict=True)]
        loss = policy_loss + 0.5 * np.square(np.concatenate(errors)).mean()
        np.testing.assert_allclose(first["loss"], loss, rtol=1e-3, atol=1e-4)


def test_a_reward_model_that_sees_otherwise_is_refused(
    tiny: dict[str, Path],
    tmp_path: Path,
    smollm2_tokenizer_dir: Path,
    tiny_llama_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model_type, rows = "qwen2-vl-2b-instruct", write_rows(tmp_path)

    def refusal(reward: Path) -> str:
        given = words("ppo", model_type, tiny[model_type], rows, tmp_path / "output", reward_model_id_or_path=reward)
        assert main(given) == 2
        return capsys.readouterr().err

    kin = write_tiny("qwen2_5_vl", tmp_path / "kin", smollm2_tokenizer_dir)
    assert "is of the kind qwen2_5_vl, and the trained one is not" in refusal(with_head(kin, tmp_path / "kin-reward"))
    coarse = with_head(tiny[model_type], tmp_path / "coarse")
    settings = json.loads((coarse / "preprocessor_config.json").read_text())
    (coarse / "preprocessor_config.json").write_text(json.dumps({**settings, "image_mean": [0.1, 0.2, 0.3]}))
    assert "image_mean is [0.1, 0.2, 0.3] there" in refusal(coarse)
    assert "has another vocabulary than the trained one" in refusal(with_head(tiny_llama_dir, tmp_path / "text"))


@pytest.mark.slow
def test_a_reward_for_naming_what_is_shown_goes_up(tmp_path: Path, smollm2_tokenizer_dir: Path) -> None:
    """The reward model is trained on pairs in which the better answer names the colour of the square."""
    model = write_tiny("llava", tmp_path / "tiny", smollm2_tokenizer_dir)
    squares, chance = lines(write_squares(tmp_path, "seen", 36, 0)), random.Random(0)
    pairs = [{**row, "rejected_response": name} for row in squares for name in COLOURS if name != row["response"]]
    halves = [{**row, "response": name} for row in squares for name in (row["response"], chance.choice(list(COLOURS)))]
    prompts = [{"query": row["query"], "images": row["images"]} for row in squares]
    whole = {"sft_type": "full", "freeze_vit": "false"}

    def run(command: str, start: Path, rows: list[dict[str, Any]], steps: int, **more: Any) -> Path:
        file, folder = tmp_path / f"{command}.jsonl", tmp_path / command
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        flags = {**whole, "max_steps": steps, "save_steps": steps, **more}
        assert main(words(command, "llava1_5-7b-instruct", start, file, folder, **flags)) == 0
        return folder / f"checkpoint-{steps}"

    usual = {"batch_size": 12, "dataset_test_ratio": 0}
    reward = run("rlhf", model, pairs, 150, rlhf_type="rm", learning_rate=0.002, **usual)
    start = run("sft", model, halves, 120, learning_rate=0.003, answer_samples=0, **usual)
    own = {"batch_size": 36, "max_new_tokens": 3, "temperature": 1, "num_ppo_epochs": 2, "kl_coef": 0.05}
    run("ppo", start, prompts, 30, learning_rate=0.0005, reward_model_id_or_path=reward, **own)
    scores = [answer["score"] for answer in lines(tmp_path / "ppo" / "rollouts.jsonl")]
    assert np.mean(scores[-108:]) > np.mean(scores[:108]) + 0.7
