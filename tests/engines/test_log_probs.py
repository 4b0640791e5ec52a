"""How likely given texts are: the numbers of a plain forward pass, whatever shares a pass, on models of many kinds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_torch import ADAPTER, engine_of, with_lora, write_lora
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OpenAIGPTConfig,
    PretrainedConfig,
)

from swift.core.errors import SwiftError

Ids = tuple[int, ...]
PROMPTS: list[tuple[Ids, list[Ids]]] = [
    (tuple(range(5, 25)), [(30,), (31,), (32, 33, 34), (30, 31), (32, 33, 35)]),
    ((7,), [(8, 9), (8,)]),
    (tuple(range(40, 70)), [tuple(range(70, 80))]),
]
START = tuple(range(100, 130))
ALIKE: list[tuple[Ids, list[Ids]]] = [
    ((*START, 5, 6), [(30, 31), (7,)]),
    (START, [(5, 6, 7), (30, 31)]),
    ((*START, 5), [(6, 7)]),
    ((*START, 40, 41, 42), [(30, 31), (30, 32)]),
]
"""Prompts with the same beginning, one of them nothing but it."""
SMALL: dict[str, Any] = {"vocab_size": 49152, "bos_token_id": 0, "eos_token_id": 0}
KINDS: dict[str, PretrainedConfig] = {
    "mamba": MambaConfig(**SMALL, hidden_size=32, num_hidden_layers=2),
    "gpt2": GPT2Config(**SMALL, n_embd=32, n_layer=2, n_head=2, n_positions=128),
    "openai-gpt": OpenAIGPTConfig(**SMALL, n_embd=32, n_layer=2, n_head=2, n_positions=128),
    "windows": MistralConfig(
        **SMALL,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=8,
    ),
    "dynamic": LlamaConfig(
        **SMALL,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    ),
}


def plain(model: torch.nn.Module, prompt: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """The same by one forward pass of transformers over each text."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0].float().log_softmax(-1)
    return [logits[len(prompt) - 1 + at, token].item() for at, token in enumerate(tokens)]


async def scored(engine, questions: Sequence[tuple[Ids, list[Ids]]], adapter: str | None = None):
    return await asyncio.gather(*(engine.log_probs(prompt, texts, adapter) for prompt, texts in questions))


def check(
    engine,
    model: torch.nn.Module,
    adapter: str | None = None,
    prompts: Sequence[tuple[Ids, list[Ids]]] = PROMPTS,
) -> None:
    for (prompt, texts), values in zip(prompts, asyncio.run(scored(engine, prompts, adapter)), strict=True):
        for tokens, each in zip(texts, values, strict=True):
            assert [token.token_id for token in each] == list(tokens)
            assert [token.logprob for token in each] == pytest.approx(plain(model, prompt, tokens), abs=1e-4)


def test_of_a_model_and_its_adapter(tiny_llama_dir: Path, tmp_path: Path) -> None:
    lora = write_lora(tiny_llama_dir, tmp_path / "lora", seed=1)
    with engine_of(tiny_llama_dir, {ADAPTER: lora}) as sync:
        base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
        check(sync.engine, base)
        check(sync.engine, with_lora(tiny_llama_dir, lora), ADAPTER)
        with pytest.raises(SwiftError, match="0 tokens"):
            asyncio.run(scored(sync.engine, [((1,), [()])]))
        with pytest.raises(SwiftError, match="token 99999"):
            asyncio.run(scored(sync.engine, [((1,), [(99999,)])]))
        check(sync.engine, base, prompts=ALIKE)
        check(
            sync.engine, base, prompts=[(tuple(range(600)), [(5, 6)]), (tuple(range(700)), [(5, 6), (7, 8, 9), (5,)])]
        )


@pytest.mark.parametrize("kind", KINDS)
def test_of_models_that_read_otherwise(tiny_llama_dir: Path, tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(KINDS[kind])
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_llama_dir).save_pretrained(tmp_path)
    with engine_of(tmp_path) as sync:
        check(sync.engine, AutoModelForCausalLM.from_pretrained(tmp_path))
