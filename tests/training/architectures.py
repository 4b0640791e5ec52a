"""Tiny random models of many decoder classes, each from its own configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
)

SIZES: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
"""Taken where a configuration has the field, under its own name for it."""
OWN_SIZES: dict[str, dict[str, Any]] = {
    "llama4_text": {"intermediate_size_mlp": 96, "num_experts_per_tok": 1},
    "jetmoe": {"kv_channels": 16},
    "openai-gpt": {"n_positions": 256},
}


def small_config(kind: str) -> PretrainedConfig:
    """A configuration of `kind` (a `model_type`) with two small layers."""
    cls = CONFIG_MAPPING[kind]
    known = cls().to_dict()
    sizes = {name: size for name, size in SIZES.items() if cls.attribute_map.get(name, name) in known}
    return cls(**{**sizes, **OWN_SIZES.get(kind, {})})


def decoders() -> list[str]:
    """Every `model_type` that has a causal language model."""
    return sorted(config.model_type for config in MODEL_FOR_CAUSAL_LM_MAPPING)


def save_small(kind: str, folder: Path, tokenizer: Path) -> Path:
    """A random model of `kind` in `folder`."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(small_config(kind), dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder
