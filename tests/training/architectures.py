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
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "rotary_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
"""Taken where a configuration has the field, under its own name for it."""
OWN_SIZES: dict[str, dict[str, Any]] = {
    "llama4_text": {"intermediate_size_mlp": 96, "num_experts_per_tok": 1},
    "jetmoe": {"kv_channels": 16},
    "bailing_hybrid": {"layer_group_size": 2},
    "bamba": {"attn_layer_indices": [1]},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 1, "state_size": 16},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "deepseek_v4": {
        "num_key_value_heads": 1,
        "o_groups": 4,
        "o_lora_rank": 16,
        "index_n_heads": 2,
        "index_head_dim": 16,
    },
    "dots1": {"n_shared_experts": 1},
    "gemma4_text": {"vocab_size_per_layer_input": 49152, "hidden_size_per_layer_input": 16, "global_head_dim": 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {
        "num_layers": 1,
        "zero_expert_num": 2,
        "moe_topk": 2,
        "expert_ffn_hidden_size": 32,
        "ffn_hidden_size": 96,
    },
    "zaya": {"num_experts_per_tok": 1},
    "dots3_note_text": {"num_key_value_heads": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
}


def small_config(kind: str) -> PretrainedConfig:
    """A configuration of `kind` (a `model_type`) with two small layers."""
    cls = CONFIG_MAPPING[kind]
    known = cls().to_dict()
    sizes = {name: size for name, size in SIZES.items() if cls.attribute_map.get(name, name) in known}
    if "kv_lora_rank" in known:  # latent attention has keys for every head
        sizes["num_key_value_heads"] = SIZES["num_attention_heads"]
    # A step with dropout or noise has no loss to compare.
    noise = [name for name, value in known.items() if isinstance(value, float) and ("drop" in name or "jitter" in name)]
    sizes |= dict.fromkeys(noise, 0.0)
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
