"""Quantized weights: as they are made while loading, and as they come from disk."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from swift import models, tuners
from swift.core.errors import SwiftError
from swift.plan.model import ModelPlan
from swift.plan.quantization import QuantPlan
from swift.plan.tuner import TunerPlan

pytest.importorskip("hqq", reason="`make test` runs these with HQQ, which is installed apart")

BNB4 = QuantPlan(method="bnb", bits=4, compute_dtype="fp32")
BNB8 = QuantPlan(method="bnb", bits=8)
HQQ4 = QuantPlan(method="hqq", bits=4)
IDS = torch.arange(40, 60)[None] * 7


def plan(folder: Path, quant: QuantPlan | None = None) -> ModelPlan:
    return ModelPlan(model_type="tiny", source=str(folder), hub="local", dtype="fp32", quant=quant)


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model(input_ids=IDS).logits


def error(folder: Path, quant: QuantPlan) -> float:
    exact = logits(models.load_model(plan(folder)))
    return float((logits(models.load_model(plan(folder, quant))) - exact).norm() / exact.norm())


def test_more_bits_are_nearer_to_the_weights(tiny_qwen2_dir: Path) -> None:
    hqq = [error(tiny_qwen2_dir, QuantPlan(method="hqq", bits=bits)) for bits in (1, 2, 3, 4, 8)]
    assert hqq == sorted(hqq, reverse=True)
    assert hqq[-1] < 0.02 < hqq[1]
    assert 0 < error(tiny_qwen2_dir, BNB8) < error(tiny_qwen2_dir, BNB4) < 0.5
    assert hqq[3] < 0.5


@pytest.mark.parametrize("change", [{"quant_type": "fp4"}, {"double_quant": False}, {"compute_dtype": "bf16"}])
def test_settings_of_bitsandbytes_reach_it(tiny_llama_dir: Path, change: dict[str, object]) -> None:
    plain = logits(models.load_model(plan(tiny_llama_dir, BNB4)))
    changed = replace(BNB4, **change)  # type: ignore[arg-type]
    assert not torch.equal(logits(models.load_model(plan(tiny_llama_dir, changed))), plain)


def test_the_dtype_that_holds_the_packed_weights_changes_no_result(tiny_llama_dir: Path) -> None:
    plain = models.load_model(plan(tiny_llama_dir, BNB4))
    stored = models.load_model(plan(tiny_llama_dir, replace(BNB4, storage="bfloat16")))
    assert stored.get_submodule("model.layers.0.mlp.up_proj").weight.dtype == torch.bfloat16
    assert torch.equal(logits(stored), logits(plain))


@pytest.mark.parametrize("quant", [BNB4, BNB8, HQQ4], ids=str)
def test_the_head_stays_whole_and_all_numbers_count(tiny_qwen2_dir: Path, quant: QuantPlan) -> None:
    model, whole = models.load_model(plan(tiny_qwen2_dir, quant)), models.load_model(plan(tiny_qwen2_dir))
    assert type(model.get_output_embeddings()) is nn.Linear
    assert type(model.get_submodule("model.layers.0.mlp.up_proj")) is not nn.Linear
    biases = 2 * (64 + 32 + 32) if quant.method == "hqq" else 0  # HQQ keeps them as plain tensors
    assert models.parameter_count(model) == models.parameter_count(whole) - biases


@pytest.mark.parametrize("quant", [BNB4, BNB8, HQQ4], ids=str)
def test_rows_of_a_batch_do_not_change_each_other(tiny_llama_dir: Path, quant: QuantPlan) -> None:
    model = models.load_model(plan(tiny_llama_dir, quant))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.input_layernorm.weight *= 3  # large activations here and there: LLM.int8 treats their columns apart
        rows = torch.arange(40, 72).reshape(8, 4)
        together = model(input_ids=rows).logits
        alone = torch.cat([model(input_ids=row[None]).logits for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("quant", [BNB4, BNB8, HQQ4], ids=str)
def test_training_goes_on_after_the_model_has_answered(tiny_llama_dir: Path, quant: QuantPlan) -> None:
    def gradients(answers: bool) -> Tensor:
        torch.manual_seed(0)
        settings = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "init_lora_weights": False}
        tuner = TunerPlan(sft_type="lora", target_modules=("ALL",), settings=settings)
        tuned = tuners.attach(models.load_model(plan(tiny_llama_dir, quant)), tuner)
        if answers:
            tuned.eval()
            logits(tuned)
            tuned.get_base_model().generate(IDS, max_new_tokens=3, do_sample=False)  # type: ignore[operator]
        tuned.train()
        tuned(input_ids=IDS, labels=IDS).loss.backward()
        return torch.cat([p.grad.reshape(-1) for p in tuned.parameters() if p.grad is not None])

    plain = gradients(answers=False)
    assert plain.abs().max() > 1e-3
    assert torch.equal(gradients(answers=True), plain)


@pytest.mark.parametrize("quant", [BNB4, BNB8], ids=str)
def test_a_folder_that_is_quantized_already(tiny_llama_dir: Path, tmp_path: Path, quant: QuantPlan) -> None:
    model = models.load_model(plan(tiny_llama_dir, quant))
    model.save_pretrained(tmp_path)
    again = models.load_model(plan(tmp_path))
    assert torch.equal(logits(again), logits(model))
    with pytest.raises(SwiftError, match=f"quantized already .bitsandbytes {quant.bits} bit"):
        models.load_model(plan(tmp_path, quant))
    with pytest.raises(SwiftError, match="full cannot train"):
        tuners.attach(again, TunerPlan(sft_type="full"))


@pytest.mark.parametrize(
    ("config", "given"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptqmodel"),
        ({"quant_method": "awq", "bits": 4}, "gptqmodel"),
        ({"quant_method": "hqq"}, "quantized with HQQ"),
        ({"quant_method": "quanto", "weights": "int8"}, "quantized (quanto) and cannot be loaded here"),
    ],
)
def test_a_folder_that_cannot_be_read_here(
    tiny_llama_dir: Path, tmp_path: Path, config: dict[str, object], given: str
) -> None:
    folder = Path(shutil.copytree(tiny_llama_dir, tmp_path / "model"))
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**found, "quantization_config": config}))
    with pytest.raises(SwiftError) as raised:
        models.load_model(plan(folder))
    assert given in raised.value.what


def test_hqq_by_layer(tiny_llama_dir: Path) -> None:
    layers = {"mlp.up_proj": {"nbits": 8, "group_size": 64, "axis": 1}, "q_proj": {"nbits": 2, "group_size": 32}}
    model = models.load_model(plan(tiny_llama_dir, QuantPlan(method="hqq", bits=8, layers=layers)))
    layer = model.model.layers[1]
    assert layer.mlp.up_proj.meta["nbits"] == 8 and layer.mlp.up_proj.meta["axis"] == 1
    assert layer.self_attn.q_proj.meta["nbits"] == 2 and layer.self_attn.q_proj.meta["group_size"] == 32
    assert type(layer.mlp.down_proj) is nn.Linear


@pytest.mark.parametrize(
    ("layers", "given", "next"),
    [
        ({"mlp.upp_proj": {"nbits": 8, "group_size": 64}}, "no linear layer", "did you mean mlp.up_proj?"),
        ({"up_proj": {"nbits": 8, "group_size": 48}}, "groups of 48", "group_size that divides"),
    ],
)
def test_hqq_by_layer_with_a_mistake(tiny_llama_dir: Path, layers: dict[str, dict], given: str, next: str) -> None:
    with pytest.raises(SwiftError, match=given) as raised:
        models.load_model(plan(tiny_llama_dir, QuantPlan(method="hqq", bits=8, layers=layers)))
    assert next in str(raised.value.next)
