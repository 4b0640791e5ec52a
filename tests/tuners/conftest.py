"""Small models and plans for the tuners."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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


@pytest.fixture(scope="session")
def small_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, tied embeddings, no tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("small") / "llama"
    LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=True)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, an untied head, biases in attention."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("small") / "qwen2"
    Qwen2ForCausalLM(Qwen2Config(**SMALL, tie_word_embeddings=False)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def plans() -> Plans:
    """Plans of `swift sft --model_id_or_path FOLDER FLAGS`."""
    catalog = load_catalog()

    def make(folder: Path, *flags: str) -> tuple[ModelPlan, TunerPlan]:
        args = parse(["sft", "--model_id_or_path", str(folder), *flags])
        model = plan_model(args, catalog, Machine())
        return model, plan_tuner(args, model)

    return make
