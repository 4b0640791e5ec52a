"""Tiny random models of many decoder classes, each from its own configuration."""

from __future__ import annotations

from collections.abc import Mapping
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
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"],
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "mamba_d_state": 16,
        "shared_intermediate_size": 32,
    },
    "plbart": {"decoder_attention_heads": 4, "encoder_attention_heads": 4},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "mamba_d_state": 8,
    },
    "zamba2": {
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention"],
        "mamba_d_state": 16,
        "n_mamba_heads": 8,
        "mamba_ngroups": 1,
    },
    "rembert": {"input_embedding_size": 64, "output_embedding_size": 64},
    "reformer": {
        "is_decoder": True,
        "attn_layers": ["local", "local"],
        "axial_pos_embds": False,
        "local_attn_chunk_length": 8,
        "attention_head_size": 16,
        "feed_forward_size": 96,
    },
    "xlnet": {"d_head": 16},
    "whisper": {"decoder_attention_heads": 4, "encoder_attention_heads": 4},
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "vocab_size_per_layer_input": 49152,
        "hidden_size_per_layer_input": 16,
        "laurel_rank": 8,
    },
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    "dots3_note_vision_encoder": {"num_hidden_layers": 42, "adapter_in_dim": 64, "adapter_out_dim": 64},
    "dots3_note_audio_encoder": {"adapter_input_size": 64, "adapter_out_dim": 64},
}


def small_config(kind: str) -> PretrainedConfig:
    """A configuration of `kind` (a `model_type`) with two small layers, and of what it is made of."""
    cls: Any = CONFIG_MAPPING[kind]
    default = cls()
    parts = {name: getattr(default, name, None) for name in cls.sub_configs}
    small = {
        name: small_config(part.model_type)
        for name, part in parts.items()
        if part and part.model_type in CONFIG_MAPPING
    }
    return cls(**{**_sizes(cls, default.to_dict()), **small, **OWN_SIZES.get(kind, {})})


def _sizes(cls: type[PretrainedConfig], known: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {name: size for name, size in SIZES.items() if cls.attribute_map.get(name, name) in known}
    if "kv_lora_rank" in known:  # latent attention has keys for every head
        sizes["num_key_value_heads"] = SIZES["num_attention_heads"]
    # A step with dropout or noise has no loss to compare.
    noise = [name for name, value in known.items() if isinstance(value, float) and ("drop" in name or "jitter" in name)]
    return sizes | dict.fromkeys(noise, 0.0)


def decoders() -> list[str]:
    """Every `model_type` that has a causal language model."""
    return sorted({config.model_type for config in MODEL_FOR_CAUSAL_LM_MAPPING})


def save_small(kind: str, folder: Path, tokenizer: Path) -> Path:
    """A random model of `kind` in `folder`."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(small_config(kind), dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder
