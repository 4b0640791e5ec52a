"""Every kind of attention that transformers has: the engine's tokens are those of generate, whatever the runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from swift.engines.base import Engine, Request, SamplingParams
from swift.engines.sync_engine import SyncEngine
from swift.engines.torch import TorchEngine

COMMON = {
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
}
SLIDING = {"sliding_window": 8, "head_dim": 16}
SLOTS = {
    "a sliding window": ("Mistral", SLIDING),
    "windows in every second layer, soft caps": (
        "Gemma2",
        {**SLIDING, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 10.0, "query_pre_attn_scalar": 16},
    ),
    "attention sinks and experts": (
        "GptOss",
        {**SLIDING, "num_local_experts": 4, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "compressed keys": (
        "DeepseekV3",
        {
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
        },
    ),
}
SEPARATE = {
    "a recurrent model": ("Mamba", {"state_size": 8}),
    "rotary embeddings that grow": (
        "Llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}},
    ),
    "attention outside of the interface": ("Falcon", {}),
}


def model_of(family: str, settings: dict[str, Any]) -> Any:
    config = getattr(transformers, f"{family}Config")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**{**COMMON, **settings})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3.0)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", [*SLOTS, *SEPARATE])
def test_answers_are_those_of_generate(kind: str, smollm2_tokenizer_dir: Path) -> None:
    model = model_of(*(SLOTS | SEPARATE)[kind])
    tokenizer = AutoTokenizer.from_pretrained(smollm2_tokenizer_dir)
    prompts = [[(7 * i + j * (i + 3)) % 490 + 3 for j in range(size)] for i, size in enumerate((5, 30, 60, 2))]
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False)
        expected.append(whole[0, len(prompt) :].tolist())

    async def start() -> Engine:
        return TorchEngine(lambda: model, tokenizer, chunk=24)

    with SyncEngine(start) as sync:
        requests = (Request(id="r", prompt_ids=tuple(p), sampling=SamplingParams(max_tokens=10)) for p in prompts)
        replies = list(sync.replies(requests, 4))
        batches = type(sync.engine._runner).__name__ == "SlotRunner"  # type: ignore[attr-defined]
    # The tokenizer's end of turn is a token of these vocabularies too.
    ends = [row.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else len(row) for row in expected]
    assert [reply.token_ids for reply in replies] == [row[:end] for row, end in zip(expected, ends, strict=True)]
    assert batches == (kind in SLOTS)
