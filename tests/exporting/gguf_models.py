"""Small random models of every architecture that converts, with a vocabulary of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 256}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [1.0 + i for i in range(8)],
    "original_max_position_embeddings": 512,
}
GEMMA3 = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1_000_000.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
}
SLIDING = {"sliding_window": 16, "query_pre_attn_scalar": 16, "head_dim": 16}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, tied": ("Llama", {"tie_word_embeddings": True}),
    "llama, biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, wide heads": ("Llama", {"head_dim": 32, "rope_parameters": LLAMA3}),
    "llama, linear": ("Llama", {"rope_parameters": LINEAR, "tie_word_embeddings": True}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {"rope_parameters": YARN}),
    "qwen3": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "gemma": ("Gemma", {"head_dim": 32, "hidden_activation": "gelu_pytorch_tanh"}),
    "gemma2": ("Gemma2", SLIDING),
    "gemma3": ("Gemma3Text", {**SLIDING, "num_hidden_layers": 7, "rope_parameters": GEMMA3}),
    "phi3": ("Phi3", {"sliding_window": 64}),
    "phi3, long": ("Phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 512}),
}


def small_model(name: str, folder: Path, rows: int, **settings: Any) -> Path:
    """The model `name` of MODELS with random weights, in `folder`. Norms and biases are not left at 1 and 0."""
    import torch
    import transformers

    kind, fields = MODELS[name]
    config = getattr(transformers, f"{kind}Config")(**{**SMALL, **fields, **settings}, vocab_size=rows)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3.0)
            else:
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder
