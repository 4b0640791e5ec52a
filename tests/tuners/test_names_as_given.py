"""Adapters stand on the layers that are named, on mixtures of experts too."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
from tests.tuners.conftest import Plans
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from swift import models, tuners
from swift.core.errors import SwiftError
from swift.tuners.peft_tuners import known_warnings
from swift.tuners.reached_layers import adapted, check_adapted

DENSE, SHARED = "model.layers.0.mlp.gate_proj", "model.layers.1.mlp.shared_experts.gate_proj"


@pytest.fixture
def deepseek(tmp_path: Path) -> Path:
    """The first block is dense, the second has fused and shared experts."""
    config = AutoConfig.for_model(
        "deepseek_v3",
        vocab_size=50,
        hidden_size=32,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=16,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    return tmp_path


def linear_layers(model: PreTrainedModel) -> set[str]:
    return {name for name, layer in model.named_modules() if type(layer) is nn.Linear and name != "lm_head"}


@pytest.mark.parametrize("method", ["lora", "ia3", "boft"])
def test_dense_and_shared_layers_get_their_adapters(method: str, deepseek: Path, plans: Plans) -> None:
    model_plan, plan = plans(deepseek, "--sft_type", method, "--target_modules", "ALL")
    model = models.load_model(model_plan)
    layers = linear_layers(model)
    tuned = tuners.attach(model, plan)
    assert {DENSE, SHARED} < layers
    assert adapted(tuned) == layers if method == "lora" else {DENSE, SHARED} < adapted(tuned)
    assert model.config.model_type == "deepseek_v3"


def test_another_layer_than_was_meant_is_an_error(deepseek: Path, plans: Plans) -> None:
    model_plan, plan = plans(deepseek, "--target_modules", "gate_proj")
    tuned = tuners.attach(models.load_model(model_plan), plan)
    for planned, words in (({DENSE}, f"{SHARED} got one unasked"), ({DENSE, SHARED, "lm_head"}, "lm_head got none")):
        with pytest.raises(SwiftError, match=words):
            check_adapted(tuned, planned)


def test_peft_itself_leaves_dense_layers_out(deepseek: Path) -> None:
    """When this fails, PEFT takes names as they are given, and `names_as_given` can go."""
    model = AutoModelForCausalLM.from_pretrained(deepseek)
    with known_warnings():
        tuned = peft.get_peft_model(model, peft.LoraConfig(target_modules=["gate_proj", "up_proj", "q_b_proj"]))
    assert DENSE not in adapted(tuned)
