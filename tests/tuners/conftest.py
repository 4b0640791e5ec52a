"""Small models and plans for the tuners."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from swift.catalog import load_catalog
from swift.core.machine import Machine
from swift.params.parse import parse
from swift.plan.model import ModelPlan, plan_model
from swift.plan.tuner import TunerPlan, plan_tuner

Plans = Callable[..., tuple[ModelPlan, TunerPlan]]
SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def _configurations() -> dict[str, Any]:
    from transformers import GPT2Config, LlamaConfig, Phi3Config, Qwen2Config, Qwen2MoeConfig, Qwen3Config

    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    return {
        "llama": LlamaConfig(**SMALL, tie_word_embeddings=True),
        "qwen2": Qwen2Config(**SMALL, tie_word_embeddings=False),
        "qwen3": Qwen3Config(**SMALL, head_dim=8),
        "phi3": Phi3Config(**SMALL, pad_token_id=0),
        "gpt2": GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4),
        "qwen2_moe": Qwen2MoeConfig(
            **SMALL, **experts, shared_expert_intermediate_size=16, mlp_only_layers=[0], decoder_sparse_step=1
        ),
    }


ARCHITECTURES = ("llama", "qwen2", "qwen3", "phi3", "gpt2", "qwen2_moe")


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a folder with a two-layer model of an architecture, once."""
    from transformers import AutoModelForCausalLM

    @cache
    def make(name: str) -> Path:
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp("small") / name
        AutoModelForCausalLM.from_config(_configurations()[name]).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def small_llama(small_models: Callable[[str], Path]) -> Path:
    """Two layers, tied embeddings, no tokenizer."""
    return small_models("llama")


@pytest.fixture(scope="session")
def small_qwen2(small_models: Callable[[str], Path]) -> Path:
    """Two layers, an untied head, biases in attention."""
    return small_models("qwen2")


@pytest.fixture(scope="session")
def plans() -> Plans:
    """Plans of `swift sft --model_id_or_path FOLDER FLAGS`."""
    catalog = load_catalog()

    def make(folder: Path, *flags: str) -> tuple[ModelPlan, TunerPlan]:
        args = parse(["sft", "--model_id_or_path", str(folder), *flags])
        model = plan_model(args, catalog, Machine())
        return model, plan_tuner(args, model)

    return make
