"""Whole models on their way to disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, MixtralConfig
from transformers.distributed import mixin

from swift.tuners.tensor_files import write_model
from training.kit import tiny_model


def test_a_process_that_is_not_the_first_writes_weights_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with --save_on_each_node. When `theirs` has weights as well, that file of `swift.compat` can go."""
    model = tiny_model()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    monkeypatch.setattr(mixin, "_get_torch_distributed_rank", lambda: 1)
    try:
        model.save_pretrained(tmp_path / "theirs")
        write_model(model, tmp_path / "ours")
    finally:
        dist.destroy_process_group()
    assert not list((tmp_path / "theirs").glob("*.safetensors"))
    assert {path.name for path in (tmp_path / "ours").iterdir()} >= {"model.safetensors", "config.json"}
    assert "should_save_on_this_rank" not in vars(model)


def test_both_formats_have_the_names_of_the_hub(tmp_path: Path) -> None:
    """In memory the experts of a layer are one tensor, which no other tool reads; likewise parts of LLaVA."""
    AutoModelForCausalLM.from_config(mixtral()).save_pretrained(tmp_path / "hub")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hub")
    write_model(model, tmp_path / "bin", safetensors=False)
    hub = load_file(tmp_path / "hub" / "model.safetensors")
    pickled = torch.load(tmp_path / "bin" / "pytorch_model.bin", weights_only=True)
    assert "model.layers.0.mlp.experts.gate_up_proj" in model.state_dict()
    assert pickled.keys() == hub.keys() and "model.layers.0.block_sparse_moe.experts.0.w1.weight" in hub
    assert all(torch.equal(value, hub[name]) for name, value in pickled.items())


def mixtral() -> MixtralConfig:
    sizes = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1, "num_local_experts": 2}
    return MixtralConfig(vocab_size=64, num_attention_heads=2, num_key_value_heads=2, head_dim=16, **sizes)
