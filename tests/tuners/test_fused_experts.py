"""Adapters on mixtures of experts: made with transformers 4, whose experts were layers, and made here."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.tuners.conftest import Plans
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from swift import models, tuners
from swift.core.errors import SwiftError

EXPERTS, HIDDEN, WIDTH, RANK = 4, 32, 16, 2
IDS = torch.arange(10)[None] * 5 % 64
SHAPES = ((WIDTH, HIDDEN), (WIDTH, HIDDEN), (HIDDEN, WIDTH))
"""Outputs and inputs of an expert's three layers: gate, up, down."""
MIXTRAL, OTHERS = ("w1", "w3", "w2"), ("gate_proj", "up_proj", "down_proj")
SHARED = {"qwen2_moe": "mlp.shared_expert", "deepseek_v3": "mlp.shared_experts"}


def mixture(kind: str) -> PreTrainedModel:
    sizes = {"vocab_size": 64, "hidden_size": HIDDEN, "intermediate_size": WIDTH, "moe_intermediate_size": WIDTH}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "num_experts_per_tok": 2}
    sizes |= {"num_experts": EXPERTS, "num_local_experts": EXPERTS, "n_routed_experts": EXPERTS}
    if kind == "qwen2_moe":
        sizes |= {"shared_expert_intermediate_size": WIDTH}
    elif kind == "deepseek_v3":
        sizes |= {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 16}
        sizes |= {"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
    else:
        sizes |= {"head_dim": 16}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).eval()


@dataclass
class OldAdapter:
    """The files of a LoRA as transformers 4 had its layers, and what it adds to the parameters of today."""

    scaling: float
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def add(self, layer: str, outputs: int, inputs: int) -> Tensor:
        A, B = torch.randn(RANK, inputs) * 0.3, torch.randn(outputs, RANK) * 0.3
        key = f"base_model.model.model.layers.{layer}"
        self.tensors |= {f"{key}.lora_A.weight": A, f"{key}.lora_B.weight": B}
        return self.scaling * B @ A

    def add_experts(self, base: PreTrainedModel, at: int, block: str, names: tuple[str, ...]) -> None:
        parameters = dict(base.named_parameters())
        for expert in range(EXPERTS):
            gate, up, down = (
                self.add(f"{at}.{block}.experts.{expert}.{name}", *shape)
                for name, shape in zip(names, SHAPES, strict=True)
            )
            parameters[f"model.layers.{at}.mlp.experts.gate_up_proj"][expert] += torch.cat([gate, up])
            parameters[f"model.layers.{at}.mlp.experts.down_proj"][expert] += down

    def add_dense(self, base: PreTrainedModel, at: int, block: str) -> None:
        for name, shape in zip(OTHERS, SHAPES, strict=True):
            layer: Any = base.get_submodule(f"model.layers.{at}.{block}.{name}")
            layer.weight += self.add(f"{at}.{block}.{name}", *shape)


@torch.no_grad()
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3"])
def test_adapters_of_transformers_4(kind: str, rslora: bool, tmp_path: Path) -> None:
    """The sum of weights that the files mean, as the model of today has them; PEFT itself drops dense layers."""
    block, names = ("block_sparse_moe", MIXTRAL) if kind == "mixtral" else ("mlp", OTHERS)
    model, wanted = mixture(kind), mixture(kind)
    adapter = OldAdapter(scaling=4 / RANK**0.5 if rslora else 4 / RANK)
    for at in range(2):
        if kind == "deepseek_v3" and at == 0:
            adapter.add_dense(wanted, at, "mlp")
            continue
        adapter.add_experts(wanted, at, block, names)
        if kind in SHARED:
            adapter.add_dense(wanted, at, SHARED[kind])
        router: Any = wanted.get_submodule(f"model.layers.{at}.mlp.gate")
        router.weight += adapter.add(f"{at}.{block}.gate", EXPERTS, HIDDEN)
    save_file(adapter.tensors, tmp_path / "adapter_model.safetensors", {"format": "pt"})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 4, "use_rslora": rslora}
    config |= {"target_modules": [*names, "gate"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    tuned = tuners.load(model, tmp_path)
    logits = wanted(input_ids=IDS).logits
    torch.testing.assert_close(tuned(input_ids=IDS).logits, logits, atol=2e-5, rtol=0)
    torch.testing.assert_close(tuners.merge(tuned)(input_ids=IDS).logits, logits, atol=2e-5, rtol=0)


def test_an_expert_that_the_model_has_not_is_said(tmp_path: Path) -> None:
    adapter = OldAdapter(scaling=1)
    adapter.add("7.mlp.experts.0.down_proj", HIDDEN, WIDTH)
    save_file(adapter.tensors, tmp_path / "adapter_model.safetensors", {"format": "pt"})
    config = {"peft_type": "LORA", "r": RANK, "target_modules": ["down_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(SwiftError, match="made with transformers 4") as caught:
        tuners.load(mixture("qwen3_moe"), tmp_path)
    assert "model.layers.7.mlp.experts" in str(caught.value)


def test_what_is_saved_here_is_read_again_where_peft_renames_it(tmp_path: Path, plans: Plans) -> None:
    """Laguna's `mlp.shared_experts.` is no `mlp.shared_expert.` of its old files."""
    sizes = {"vocab_size": 64, "hidden_size": HIDDEN, "intermediate_size": WIDTH, "moe_intermediate_size": WIDTH}
    sizes |= {"shared_expert_intermediate_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 2, "num_experts": EXPERTS, "num_experts_per_tok": 2, "head_dim": 16}
    base, saved = tmp_path / "base", tmp_path / "adapter"
    AutoModelForCausalLM.from_config(AutoConfig.for_model("laguna", **sizes)).save_pretrained(base)
    saved.mkdir()
    model_plan, plan = plans(base, "--target_modules", "ALL")
    tuned = tuners.attach(models.load_model(model_plan), plan).eval()
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    tuners.save(tuned, saved)
    assert any("shared_experts" in name for name, _ in tuned.named_parameters() if "lora_" in name)
    again = tuners.load(models.load_model(model_plan), saved)
    with torch.no_grad():
        assert torch.equal(again(input_ids=IDS).logits, tuned(input_ids=IDS).logits)
