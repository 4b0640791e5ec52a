"""Small models of random weights, one a row, of the architectures that transformers has."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

COMMON: dict[str, Any] = {
    "vocab_size": 500,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": None,
    "pad_token_id": 0,
    "bos_token_id": None,
    "tie_word_embeddings": False,
}
SLIDING = {"sliding_window": 8, "head_dim": 16}
DEEPSEEK = {
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 32,
    "kv_lora_rank": 16,
    "q_lora_rank": None,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "first_k_dense_replace": 1,
}
SPARSE = {**DEEPSEEK, "q_lora_rank": 16, "index_n_heads": 2, "index_head_dim": 16, "index_topk": 40}
MAMBA2 = {"state_size": 8, "num_heads": 8, "head_dim": 16, "n_groups": 1, "chunk_size": 8}
HYBRID = {"mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_chunk_size": 8}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_experts": 4}
LONGROPE = {
    "max_position_embeddings": 256,
    "original_max_position_embeddings": 32,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_mscale": 1.0,
        "long_mscale": 1.2,
        "short_factor": [1.0] * 8,
        "long_factor": [4.0] * 8,
        "original_max_position_embeddings": 32,
    },
}
DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "head_dim": 16,
}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "dynamic rope": (
        "Llama",
        {
            "max_position_embeddings": 32,
            "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
        },
    ),
    "mistral": ("Mistral", SLIDING),
    "mixtral": ("Mixtral", {**SLIDING, **EXPERTS}),
    "qwen2": ("Qwen2", {}),
    "qwen2 moe": ("Qwen2Moe", {**EXPERTS, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "qwen3 moe": ("Qwen3Moe", {"head_dim": 16, **EXPERTS, "moe_intermediate_size": 32}),
    "qwen3 next": ("Qwen3Next", {**DELTA, **EXPERTS}),
    "gemma": ("Gemma", {"head_dim": 16}),
    "gemma2": ("Gemma2", {**SLIDING, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 16}),
    "gemma3": ("Gemma3Text", {**SLIDING, "query_pre_attn_scalar": 16, "sliding_window_pattern": 2}),
    "gpt-oss": ("GptOss", {**SLIDING, **EXPERTS, "layer_types": ["sliding_attention", "full_attention"]}),
    "cohere": ("Cohere", {}),
    "cohere2": ("Cohere2", {**SLIDING, "layer_types": ["sliding_attention", "full_attention"]}),
    "phi": ("Phi", {}),
    "phi3": ("Phi3", {}),
    "phi3 longrope": ("Phi3", LONGROPE),
    "phimoe longrope": ("Phimoe", {**LONGROPE, **EXPERTS}),
    "deepseek v2": ("DeepseekV2", {**DEEPSEEK, "topk_method": "greedy"}),
    "deepseek v3": ("DeepseekV3", DEEPSEEK),
    "dbrx": (
        "Dbrx",
        {
            "d_model": 64,
            "n_heads": 4,
            "n_layers": 2,
            "max_seq_len": 512,
            "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
            "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 64},
        },
    ),
    "olmo": ("Olmo", {}),
    "olmo2": ("Olmo2", {}),
    "olmoe": ("Olmoe", EXPERTS),
    "olmo3": ("Olmo3", {"sliding_window": 8}),
    "stablelm": ("StableLm", {}),
    "starcoder2": ("Starcoder2", {"sliding_window": 8}),
    "persimmon": ("Persimmon", {}),
    "nemotron": ("Nemotron", {}),
    "granite": ("Granite", {}),
    "granite moe": ("GraniteMoe", EXPERTS),
    "granite hybrid": ("GraniteMoeHybrid", {**HYBRID, **EXPERTS, "layer_types": ["mamba", "attention"]}),
    "exaone4": ("Exaone4", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
    "smollm3": ("SmolLM3", {}),
    "glm": ("Glm", {"head_dim": 16}),
    "glm4": ("Glm4", {"head_dim": 16}),
    "glm4 moe": ("Glm4Moe", {**DEEPSEEK, "num_key_value_heads": 2, "head_dim": 16}),
    "ernie4.5": ("Ernie4_5", {"head_dim": 16}),
    "hunyuan": ("HunYuanDenseV1", {"head_dim": 16}),
    "arcee": ("Arcee", {}),
    "seed-oss": ("SeedOss", {"head_dim": 16}),
    "apertus": ("Apertus", {}),
    "helium": ("Helium", {"head_dim": 16}),
    "diffllama": ("DiffLlama", {}),
    "moshi": ("Moshi", {"head_dim": 16, "sliding_window": 128}),
    "bitnet": ("BitNet", {}),
    "dots1": ("Dots1", {**DEEPSEEK, "num_key_value_heads": 2, "head_dim": 16, "n_shared_experts": 1}),
    "gpt2": ("GPT2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "max_position_embeddings": 128}),
    "gpt-bigcode": ("GPTBigCode", {"n_embd": 64, "n_layer": 2, "n_head": 4, "max_position_embeddings": 128}),
    "gpt-neo": (
        "GPTNeo",
        {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8},
    ),
    "gpt-neox": ("GPTNeoX", {}),
    "gpt-neox japanese": ("GPTNeoXJapanese", {"intermediate_multiple_size": 2}),
    "gpt-j": ("GPTJ", {"n_embd": 64, "n_layer": 2, "n_head": 4, "max_position_embeddings": 128, "rotary_dim": 8}),
    "codegen": ("CodeGen", {"n_embd": 64, "n_layer": 2, "n_head": 4, "max_position_embeddings": 128, "rotary_dim": 8}),
    "openai-gpt": ("OpenAIGPT", {"n_embd": 64, "n_layer": 2, "n_head": 4, "max_position_embeddings": 128}),
    "ctrl": ("CTRL", {"n_embd": 64, "n_layer": 2, "n_head": 4, "max_position_embeddings": 128, "dff": 96}),
    "opt": ("OPT", {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    "biogpt": ("BioGpt", {}),
    "xglm": ("XGLM", {"d_model": 64, "ffn_dim": 96, "num_layers": 2, "attention_heads": 4}),
    "bloom": ("Bloom", {"n_layer": 2, "n_head": 4}),
    "mpt": ("Mpt", {"d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 128}),
    "falcon": ("Falcon", {}),
    "falcon alibi": ("Falcon", {"alibi": True}),
    "falcon-h1": ("FalconH1", {**HYBRID, "mamba_d_ssm": 128, "head_dim": 16}),
    "bamba": ("Bamba", {**HYBRID, "attn_layer_indices": [1]}),
    "jamba": ("Jamba", {**EXPERTS, "use_mamba_kernels": False, "mamba_d_state": 8, "attn_layer_offset": 1}),
    "zamba": ("Zamba", {"num_hidden_layers": 4, "use_mamba_kernels": False, "n_mamba_heads": 2, "mamba_d_state": 8}),
    "zamba2": (
        "Zamba2",
        {
            "layers_block_type": ["linear_attention", "hybrid"],
            "mamba_d_state": 8,
            "n_mamba_heads": 8,
            "mamba_headdim": 16,
            "mamba_ngroups": 1,
        },
    ),
    "mamba": ("Mamba", {"state_size": 8}),
    "mamba2": ("Mamba2", MAMBA2),
    "falcon-mamba": ("FalconMamba", {"state_size": 8}),
    "nemotron-h": ("NemotronH", {}),
    "xlstm": ("xLSTM", {"num_heads": 4, "num_blocks": 2, "qk_dim_factor": 1.0, "max_inference_chunksize": 16}),
    "rwkv": ("Rwkv", {"attention_hidden_size": 64, "context_length": 128}),
    "recurrent gemma": (
        "RecurrentGemma",
        {"lru_width": 64, "attention_window_size": 16, "block_types": ["recurrent", "attention"]},
    ),
    "lfm2": ("Lfm2", {"layer_types": ["conv", "full_attention"], "block_multiple_of": 32}),
    "minimax": ("MiniMax", {**EXPERTS, "head_dim": 16, "block_size": 8}),
    "llama4": (
        "Llama4Text",
        {
            **EXPERTS,
            "head_dim": 16,
            "intermediate_size_mlp": 96,
            "attention_chunk_size": 16,
            "no_rope_layers": [1, 0],
        },
    ),
    "afmoe": (
        "Afmoe",
        {**EXPERTS, "head_dim": 16, "num_dense_layers": 1, "sliding_window": 8, "moe_intermediate_size": 32},
    ),
    "jetmoe": ("JetMoe", {**EXPERTS, "num_key_value_heads": 2, "kv_channels": 16}),
    "doge": ("Doge", {"keep_window_size": 64}),
    "cohere2 moe": ("Cohere2Moe", {**SLIDING, **EXPERTS, "layer_types": ["sliding_attention", "full_attention"]}),
    "deepseek v3.2": ("DeepseekV32", SPARSE),
    "deepseek v4": ("DeepseekV4", {**SPARSE, "head_dim": 16, "o_lora_rank": 16}),
    "glm dsa": ("GlmMoeDsa", SPARSE),
    "dots3 note": ("Dots3NoteText", {**DEEPSEEK, "q_lora_rank": 16, "head_dim": 16}),
    "minicpm3": ("MiniCPM3", {**DEEPSEEK, "q_lora_rank": 16}),
    "youtu": ("Youtu", DEEPSEEK),
    "gemma3n": (
        "Gemma3nText",
        {
            **SLIDING,
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 1,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "activation_sparsity_pattern": [0.0] * 4,
            "vocab_size_per_layer_input": 500,
            "hidden_size_per_layer_input": 16,
            "laurel_rank": 8,
        },
    ),
    "gemma4": (
        "Gemma4Text",
        {
            **SLIDING,
            "layer_types": ["sliding_attention", "full_attention"],
            "vocab_size_per_layer_input": 500,
            "hidden_size_per_layer_input": 16,
        },
    ),
    "vaultgemma": ("VaultGemma", {**SLIDING, "query_pre_attn_scalar": 16}),
    "exaone moe": ("ExaoneMoe", {**EXPERTS, "sliding_window": 8, "moe_intermediate_size": 32}),
    "granite swa": ("GraniteSWA", {"sliding_window": 8}),
    "laguna": ("Laguna", {**EXPERTS, "head_dim": 16, "sliding_window": 8}),
    "mimo v2": ("MiMoV2Flash", {**EXPERTS, "head_dim": 16, "sliding_window": 8}),
    "ministral": ("Ministral", {**SLIDING, "layer_types": ["sliding_attention", "full_attention"]}),
    "minimax m2": ("MiniMaxM2", {**EXPERTS, "head_dim": 16}),
    "lfm2 moe": (
        "Lfm2Moe",
        {
            **EXPERTS,
            "layer_types": ["conv", "full_attention"],
            "moe_intermediate_size": 32,
            "num_dense_layers": 1,
        },
    ),
    "olmo hybrid": ("OlmoHybrid", DELTA),
    "qwen3.5": ("Qwen3_5Text", DELTA),
    "qwen3.5 moe": ("Qwen3_5MoeText", {**DELTA, **EXPERTS}),
    "zaya": ("Zaya", {**EXPERTS, "num_experts_per_tok": 1, "head_dim": 16}),
    "modernbert decoder": (
        "ModernBertDecoder",
        {"bos_token_id": 1, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 16},
    ),
    "yarn": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "rope_theta": 10000.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "longrope with a window": ("Phi3", {**LONGROPE, "sliding_window": 16}),
}
"""Name -> the class of its configuration, and what is not as in `COMMON`."""


def tiny_model(name: str) -> PreTrainedModel:
    """The model of a row of `ARCHITECTURES`, with weights large enough that its answers depend on the whole text."""
    family, settings = ARCHITECTURES[name]
    config = getattr(transformers, f"{family}Config")(**{**COMMON, **settings})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3.0)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model
