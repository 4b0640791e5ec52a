from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, MistralConfig, PreTrainedModel, Qwen2Config

from swift.training.varlen_attention import NAME, keep_inside_sequences
from training.kit import VOCABULARY, tiny_model

LENGTHS = (5, 9, 1, 14)
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def flattened() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    return torch.randint(0, VOCABULARY, (1, sum(LENGTHS))), positions[None]


def models() -> dict[str, PreTrainedModel]:
    torch.manual_seed(0)
    return {
        "llama with grouped keys": tiny_model(),
        "qwen2 with biases": AutoModelForCausalLM.from_config(
            Qwen2Config(**SIZES, num_key_value_heads=2), attn_implementation="sdpa"
        ),
        "mistral with a window shorter than a sequence": AutoModelForCausalLM.from_config(
            MistralConfig(**SIZES, num_key_value_heads=4, sliding_window=4), attn_implementation="sdpa"
        ),
    }


@pytest.mark.parametrize("name", models())
def test_a_flattened_row_gives_the_logits_of_its_sequences(name: str) -> None:
    model = models()[name].eval()
    ids, positions = flattened()
    with torch.no_grad():
        alone = torch.cat([model(input_ids=part).logits for part in ids.split(LENGTHS, 1)], 1)
        assert keep_inside_sequences(model)
        flat = model(input_ids=ids, position_ids=positions, use_cache=False, sequence_lengths=LENGTHS).logits
    torch.testing.assert_close(flat, alone, rtol=1e-5, atol=1e-5)


def test_a_switched_model_still_takes_padded_batches_and_generates() -> None:
    model = tiny_model().eval()
    ids, _ = flattened()
    mask = torch.ones_like(ids)
    mask[:, :6] = 0
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    before = model.generate(ids, attention_mask=mask, **options)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits[:, 6:]
    assert keep_inside_sequences(model)
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).logits[:, 6:], logits)
    assert torch.equal(model.generate(ids, attention_mask=mask, **options), before)


def test_a_recurrent_model_is_left_as_it_is() -> None:
    config = AutoConfig.for_model(
        "mamba", vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=1, state_size=4, intermediate_size=32
    )
    model = AutoModelForCausalLM.from_config(config)
    before = model.config._attn_implementation
    assert not keep_inside_sequences(model)
    assert model.config._attn_implementation == before != NAME


def test_eager_attention_is_left_as_it_is() -> None:
    model = AutoModelForCausalLM.from_config(tiny_model().config, attn_implementation="eager")
    assert not keep_inside_sequences(model)
    assert model.config._attn_implementation == "eager"
