"""Adapter files: what is written, and that a file that does not fit is never loaded half."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tuners.conftest import Plans
from tests.tuners.test_behaviour import logits, train

from swift import models, tuners
from swift.core.errors import SwiftError
from swift.tuners.adapter_saving import Card

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def adapter(small_llama: Path, plans: Plans, tmp_path: Path) -> Path:
    """A trained LoRA with a saved norm."""
    model_plan, plan = plans(small_llama, "--modules_to_save", "norm")
    tuned = tuners.attach(models.load_model(model_plan), plan)
    train(tuned, 1)
    card = Card(model=model_plan, tuner=plan, template_type="chatml", base=models.identity(small_llama))
    tuners.save(tuned, tmp_path, card)
    return tmp_path


def test_files_of_a_checkpoint(adapter: Path, small_llama: Path) -> None:
    names = {path.name for path in adapter.iterdir()}
    assert names == {
        WEIGHTS,
        "adapter_config.json",
        "additional_config.json",
        "configuration.json",
        "generation_config.json",
    }
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(small_llama)
    assert config["target_modules"] == ["k_proj", "q_proj", "v_proj"] and config["inference_mode"] is True
    additional = json.loads((adapter / "additional_config.json").read_text())
    assert additional == {"lora_dtype": None, "lorap_lr_ratio": None, "lorap_emb_lr": 1e-06}
    given = json.loads((adapter / "configuration.json").read_text())
    assert given["adapter_cfg"] == {
        "model_id_or_path": str(small_llama),
        "model_revision": None,
        "sft_type": "lora",
        "tuner_backend": "peft",
        "template_type": "chatml",
        "dtype": "fp32",
        "system": None,
    }
    assert models.same_base(given["base_identity"], small_llama)


def test_plain_peft_reads_it(adapter: Path, small_llama: Path, plans: Plans) -> None:
    import peft

    from swift.tuners.peft_tuners import known_warnings

    model_plan, _ = plans(small_llama)
    ours = tuners.load(models.load_model(model_plan), adapter)
    with known_warnings():
        theirs = peft.PeftModel.from_pretrained(models.load_model(model_plan), str(adapter))
    torch.testing.assert_close(logits(theirs), logits(ours))


@pytest.mark.parametrize("gone", ["norm", "lora_B"])
def test_a_missing_tensor_is_an_error(gone: str, adapter: Path, small_llama: Path, plans: Plans) -> None:
    tensors = load_file(adapter / WEIGHTS)
    lost = next(name for name in tensors if gone in name)
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, adapter / WEIGHTS)
    with pytest.raises(SwiftError, match="does not fit") as error:
        tuners.load(models.load_model(plans(small_llama)[0]), adapter)
    assert lost in str(error.value.why)


def test_dora_without_magnitudes_is_an_error(small_llama: Path, plans: Plans, tmp_path: Path) -> None:
    model_plan, plan = plans(small_llama, "--use_dora", "true")
    tuners.save(tuners.attach(models.load_model(model_plan), plan), tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    save_file({n: t for n, t in tensors.items() if "magnitude" not in n}, tmp_path / WEIGHTS)
    with pytest.raises(SwiftError, match="does not fit"):
        tuners.load(models.load_model(model_plan), tmp_path)


def test_a_tensor_nothing_uses_is_an_error(adapter: Path, small_llama: Path, plans: Plans) -> None:
    tensors = load_file(adapter / WEIGHTS)
    save_file({**tensors, "base_model.model.model.layers.9.mlp.lora_A.weight": torch.zeros(1)}, adapter / WEIGHTS)
    with pytest.raises(SwiftError, match="does not fit"):
        tuners.load(models.load_model(plans(small_llama)[0]), adapter)


def test_another_shape_is_an_error(adapter: Path, tmp_path: Path, plans: Plans) -> None:
    from tests.tuners.conftest import SMALL
    from transformers import LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(LlamaConfig(**{**SMALL, "hidden_size": 64})).save_pretrained(tmp_path / "wider")
    with pytest.raises(SwiftError, match="does not fit") as error:
        tuners.load(models.load_model(plans(tmp_path / "wider")[0]), adapter)
    assert "another shape" in str(error.value.why)


def test_a_cut_file_is_an_error(adapter: Path, small_llama: Path, plans: Plans) -> None:
    path = adapter / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SwiftError, match="cut short"):
        tuners.load(models.load_model(plans(small_llama)[0]), adapter)


def test_added_tokens_come_back(small_llama: Path, plans: Plans, tmp_path: Path) -> None:
    """PEFT saves resized embeddings whole; the base is resized to them."""
    model_plan, plan = plans(small_llama, "--modules_to_save", "EMBEDDING")
    base = models.load_model(model_plan)
    base.resize_token_embeddings(310, mean_resizing=False)
    tuned = tuners.attach(base, plan)
    train(tuned, 1)
    tuners.save(tuned, tmp_path)
    again = tuners.load(models.load_model(model_plan), tmp_path)
    assert logits(again).shape[-1] == 310
    torch.testing.assert_close(logits(again)[..., :300], logits(tuned)[..., :300])


def test_full_tuning_saves_a_model(small_llama: Path, plans: Plans, tmp_path: Path) -> None:
    model_plan, plan = plans(small_llama, "--sft_type", "full")
    tuned = tuners.attach(models.load_model(model_plan), plan)
    train(tuned, 1)
    tuners.save(tuned, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "generation_config.json", "model.safetensors"}
    torch.testing.assert_close(logits(models.load_model(plans(tmp_path)[0])), logits(tuned))
