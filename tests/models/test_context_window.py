"""How long a text a model can read, whatever its configuration calls that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers

from swift.models import context_length
from swift.models.load import load_config
from swift.plan.model import ModelPlan, RopePlan

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048, "rope_theta": 1e4}
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "rope_theta": 1e4}
ROWS: list[tuple[str, dict[str, Any], int | None]] = [
    ("GPT2", {"n_positions": 128}, 128),
    ("CTRL", {"n_positions": 128}, 128),
    ("GPTBigCode", {"n_positions": 128}, 128),
    ("GPTJ", {"n_positions": 128}, 128),
    ("OpenAIGPT", {"n_positions": 128}, 128),
    ("CodeGen", {"n_positions": 128}, 128),
    ("Mpt", {"max_seq_len": 128}, 128),
    ("Dbrx", {"max_seq_len": 128}, 128),
    ("Rwkv", {"context_length": 128}, 128),
    ("Bloom", {}, None),
    ("Bloom", {"seq_length": 128}, 128),
    ("Mamba", {}, None),
    ("XLNet", {}, None),
    ("XLMRoberta", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
    ("Llama", {"max_position_embeddings": 4096}, 4096),
    ("Llama", {"max_position_embeddings": 2048, "rope_parameters": YARN}, 8192),
    ("Llama", {"max_position_embeddings": 8192, "rope_parameters": YARN}, 8192),
    ("Llama", {"max_position_embeddings": 128, "rope_parameters": {"rope_type": "dynamic", "factor": 2.5}}, 320),
    ("Llama", {"max_position_embeddings": 128, "rope_parameters": {"rope_type": "linear", "factor": 2.0}}, 128),
    (
        "Phi3",
        {
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 1024,
            "rope_parameters": LONG,
            "hidden_size": 64,
            "num_attention_heads": 4,
        },
        4096,
    ),
]


@pytest.mark.parametrize(("family", "settings", "length"), ROWS)
def test_the_length_of_every_family(family: str, settings: dict[str, Any], length: int | None) -> None:
    assert context_length(getattr(transformers, f"{family}Config")(**settings)) == length


def test_layers_with_rotary_embeddings_of_their_own(tmp_path: Path) -> None:
    transformers.Gemma3TextConfig(max_position_embeddings=1024).save_pretrained(tmp_path)
    plan = ModelPlan(model_type="gemma3", source=str(tmp_path), hub="local", dtype="fp32")
    for kind in ("linear", "dynamic", "yarn"):
        config = load_config(replace(plan, rope_scaling=RopePlan(kind=kind, length=3000)), tmp_path)
        assert context_length(config) == 3072
        assert config.rope_parameters["full_attention"]["rope_type"] == kind
        assert config.rope_parameters["sliding_attention"]["rope_type"] == "default"
        assert config.max_position_embeddings == (1024 if kind == "dynamic" else 3072)
