"""PPO and GRPO learn a reward that one can count, on every seed, and a larger KL coefficient keeps them nearer to their
start. The figures are in docs/alignment.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from swift.cli import main

SEEDS = (1, 2, 3)
ANSWERS = 16
"""Of a roll-out."""


@pytest.fixture(scope="module")
def favoured(tiny_llama_dir: Path) -> Tensor:
    """(V) about half of the vocabulary: the tokens that score."""
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    return model.get_input_embeddings().weight[:, 0] > 0


@pytest.fixture(scope="module")
def reward_model(smollm2_tokenizer_dir: Path, favoured: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that rises with the share of favoured tokens: uniform attention over +1 and -1."""
    folder = tmp_path_factory.mktemp("reward") / "share"
    AutoTokenizer.from_pretrained(smollm2_tokenizer_dir).save_pretrained(folder)
    shape: Any = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1}
    model: Any = LlamaForCausalLM(LlamaConfig(vocab_size=len(favoured), tie_word_embeddings=True, **shape))
    layer: Any = model.model.layers[0]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.input_layernorm.weight.fill_(1.0)
        embeddings = torch.zeros(len(favoured), 8)
        embeddings[:, 0], embeddings[:, 1] = 1.0, favoured.float() * 2 - 1
        model.get_input_embeddings().weight.copy_(embeddings)
        layer.self_attn.v_proj.weight[0, 1] = 0.5
        layer.self_attn.o_proj.weight[2, 0] = 1.0
    model.save_pretrained(folder)
    weight = torch.zeros(1, 8)
    weight[0, 2] = 4.0
    save_file(
        {"v_head.summary.weight": weight, "v_head.summary.bias": torch.zeros(1)}, folder / "value_head.safetensors"
    )
    return folder


@pytest.fixture(scope="module")
def plugin(favoured: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward function that gives the share of favoured tokens."""
    path = tmp_path_factory.mktemp("plugin") / "share.py"
    torch.save(favoured, path.with_suffix(".pt"))
    path.write_text(
        f"""import torch

FAVOURED = torch.load({str(path.with_suffix(".pt"))!r})


def share(token_ids):
    return [FAVOURED[list(ids)].float().mean().item() for ids in token_ids]
"""
    )
    return path


def rows_of_run(run: Path, command: str, model: Path, **values: Any) -> list[dict[str, Any]]:
    """What the answers of a run were, in order."""
    prompts = run.parent / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"query": f"Say word {number}"}) + "\n" for number in range(16)))
    given = {
        "model_id_or_path": model,
        "dataset": prompts,
        "output_dir": run,
        "add_output_dir_suffix": "false",
        "sft_type": "full",
        "batch_size": ANSWERS,
        "gradient_accumulation_steps": 1,
        "max_new_tokens": 6,
        "temperature": 1.0,
        "top_k": 20,
        "learning_rate": 3e-3,
        "lr_scheduler_type": "constant",
        "warmup_ratio": 0,
        "logging_steps": 100,
        "save_steps": 100,
        "save_only_model": "true",
        "report_to": "none",
        "no_cache": "true",
        **values,
    }
    assert main([command, *(word for name, value in given.items() for word in (f"--{name}", str(value)))]) == 0
    return [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]


def share(rows: list[dict[str, Any]], favoured: Tensor) -> float:
    """The share of favoured tokens among those of the answers."""
    return favoured[[token for row in rows for token in row["answer_ids"]]].float().mean().item()


def kl(rows: list[dict[str, Any]]) -> float:
    """Mean over answers of log(policy / reference), summed over their tokens."""
    return sum(sum(row["log_probs"]) - sum(row["ref_log_probs"]) for row in rows) / len(rows)


@pytest.fixture(scope="module")
def flags(reward_model: Path, plugin: Path) -> dict[str, dict[str, Any]]:
    """Of each command: the same reward, twice trained on, with hardly anything that holds the policy back."""
    return {
        "ppo": {"reward_model_id_or_path": reward_model, "num_ppo_epochs": 2, "kl_coef": 0.0},
        "grpo": {"reward_funcs": "share", "external_plugins": plugin, "num_iterations": 2, "beta": 0.001},
    }


HELD: dict[str, dict[str, Any]] = {"ppo": {"kl_coef": 5.0}, "grpo": {"beta": 2.0}}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["ppo", "grpo"])
def test_it_learns_a_reward_that_one_can_count(
    command: str, tiny_llama_dir: Path, favoured: Tensor, flags: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    for seed in SEEDS:
        rows = rows_of_run(tmp_path / f"{seed}", command, tiny_llama_dir, **flags[command], seed=seed, max_steps=10)
        assert share(rows[-ANSWERS:], favoured) > share(rows[:ANSWERS], favoured) + 0.25, seed


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("command", ["ppo", "grpo"])
def test_a_larger_coefficient_holds_it_nearer_to_its_start(
    command: str, seed: int, tiny_llama_dir: Path, flags: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    common = {**flags[command], "seed": seed, "max_steps": 24, "learning_rate": 1e-3}
    free = rows_of_run(tmp_path / "free", command, tiny_llama_dir, **common)
    held = rows_of_run(tmp_path / "held", command, tiny_llama_dir, **{**common, **HELD[command]})
    assert kl(held[-2 * ANSWERS :]) < 0.85 * kl(free[-2 * ANSWERS :])
