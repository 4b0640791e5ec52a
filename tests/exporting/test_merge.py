"""A merge that is not base + adapter never gets its name; each test puts one fault in."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from swift import models, tuners
from swift.core.errors import CheckFailed, SwiftError
from swift.core.transaction import fault, seal
from swift.exporting import merge as merging
from swift.exporting import model_comparison
from swift.exporting.merge import REPORT, merge
from swift.plan.merge import MergePlan
from swift.plan.model import ModelPlan
from swift.plan.tuner import TunerPlan
from swift.tuners.adapter_saving import Card

LORA = {"r": 4, "lora_alpha": 32, "lora_dropout": 0.0, "init_lora_weights": False}
"""`init_lora_weights` False starts A and B at random, so the adapter changes every answer without training."""


def base_plan(folder: Path) -> ModelPlan:
    return ModelPlan(model_type="tiny", source=str(folder), hub="local", dtype="fp32")


@pytest.fixture
def checkpoint(tiny_llama_dir: Path, tmp_path: Path) -> Path:
    """A DoRA with a norm saved whole, sealed as training does it."""
    tuner = TunerPlan(sft_type="lora", modules_to_save=("norm",), settings={**LORA, "use_dora": True})
    return make(tiny_llama_dir, tmp_path / "run" / "checkpoint-3", tuner)


def make(base: Path, folder: Path, tuner: TunerPlan) -> Path:
    torch.manual_seed(1)
    tuned = tuners.attach(models.load_model(base_plan(base)), tuner)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                parameter.mul_(1.5)
    folder.mkdir(parents=True)
    tuners.save(tuned, folder, Card(model=base_plan(base), tuner=tuner, base=models.identity(base)))
    (folder / "sft_args.json").write_text(json.dumps({"sft_type": "lora", "model_type": "tiny", "dtype": "fp32"}))
    seal(folder)
    return folder


def plan(checkpoint: Path, base: Path, **changes: object) -> MergePlan:
    target = checkpoint.with_name(f"{checkpoint.name}-merged")
    made = MergePlan(checkpoint=checkpoint, target=target, model=replace(base_plan(base), adapter=str(checkpoint)))
    return replace(made, **changes)


def test_the_merged_folder(checkpoint: Path, tiny_llama_dir: Path) -> None:
    folder = merge(plan(checkpoint, tiny_llama_dir))
    assert folder == checkpoint.with_name("checkpoint-3-merged") and fault(folder) is None
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.json", "configuration.json", "generation_config.json", "model.safetensors"}
    assert names >= {"sft_args.json", "tokenizer.json", "tokenizer_config.json", REPORT}
    assert json.loads((folder / "sft_args.json").read_text())["sft_type"] == "full"
    report = json.loads((folder / REPORT).read_text())
    assert report["faults"] == [] and report["base_checked"] is True
    assert report["written"]["max_difference"] < 1e-4 and report["written"]["agreement"] == 1.0
    assert report["written"]["tokens"] >= 64

    tuned = tuners.load(models.load_model(base_plan(tiny_llama_dir)), checkpoint)
    merged = models.load_model(base_plan(folder))
    ids = torch.arange(5, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(merged(input_ids=ids).logits, tuned(input_ids=ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("targets", [("embed_tokens",), ("lm_head",), ("embed_tokens", "lm_head", "q_proj")])
def test_tied_embeddings(targets: tuple[str, ...], tiny_llama_dir: Path, tmp_path: Path) -> None:
    tuner = TunerPlan(sft_type="lora", target_modules=targets, settings=LORA)
    folder = merge(plan(make(tiny_llama_dir, tmp_path / "checkpoint-1", tuner), tiny_llama_dir))
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False
    assert "lm_head.weight" in load_file(folder / "model.safetensors")


def test_bf16_is_the_rounded_fp32_merge(checkpoint: Path, tiny_llama_dir: Path) -> None:
    rounded = merge(plan(checkpoint, tiny_llama_dir, model=replace(base_plan(tiny_llama_dir), dtype="bf16")))
    exact = merge(plan(checkpoint, tiny_llama_dir, target=checkpoint.with_name("exact")))
    left, right = load_file(rounded / "model.safetensors"), load_file(exact / "model.safetensors")
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name].bfloat16()) for name in left)
    report = json.loads((rounded / REPORT).read_text())
    assert report["merged"]["max_difference"] <= report["tolerance"] < report["cast_tolerance"]


RECURRENT = {
    "mamba": {"hidden_size": 32, "state_size": 4, "num_hidden_layers": 2},
    "mamba2": {"hidden_size": 32, "state_size": 4, "num_heads": 4, "head_dim": 16, "n_groups": 1},
    "rwkv": {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 2},
    "recurrent_gemma": {"hidden_size": 32, "lru_width": 32, "num_attention_heads": 2, "intermediate_size": 64},
}


@pytest.mark.parametrize(
    "kind", ["mamba", *(pytest.param(k, marks=pytest.mark.slow) for k in RECURRENT if k != "mamba")]
)
def test_models_without_keys_and_values(kind: str, smollm2_tokenizer_dir: Path, tmp_path: Path) -> None:
    config = AutoConfig.for_model(kind, **{"vocab_size": 49152, "num_hidden_layers": 2, **RECURRENT[kind]})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(smollm2_tokenizer_dir).save_pretrained(tmp_path / "base")
    tuner = TunerPlan(sft_type="lora", target_modules=("ALL",), settings=LORA)
    folder = merge(plan(make(tmp_path / "base", tmp_path / "checkpoint-1", tuner), tmp_path / "base"))
    assert json.loads((folder / REPORT).read_text())["written"]["agreement"] == 1.0


def test_bin_files(checkpoint: Path, tiny_llama_dir: Path) -> None:
    folder = merge(plan(checkpoint, tiny_llama_dir, safetensors=False))
    assert (folder / "pytorch_model.bin").is_file() and not (folder / "model.safetensors").exists()


def _drop_saved_module(tuned: nn.Module) -> None:
    norm = tuned.get_base_model().model.norm
    norm.modules_to_save["default"].weight.data.copy_(norm.original_module.weight)


def _ignore_magnitude(tuned: nn.Module) -> None:
    for name, parameter in tuned.named_parameters():
        if "magnitude" in name:
            parameter.data.div_(1.5)


def _double_scaling(tuned: nn.Module) -> None:
    for module in tuned.modules():
        if type(module).__module__.startswith("peft.tuners.lora") and "scaling" in vars(module):
            vars(module)["scaling"]["default"] *= 2


def _forget_one_layer(tuned: nn.Module) -> None:
    tuned.get_base_model().model.layers[1].self_attn.q_proj.lora_B["default"].weight.data.zero_()


@pytest.mark.parametrize("spoil", [_drop_saved_module, _ignore_magnitude, _double_scaling, _forget_one_layer])
def test_a_wrong_merge_is_caught(
    spoil: Callable[[nn.Module], None], checkpoint: Path, tiny_llama_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = tuners.merge

    def wrong(tuned: nn.Module):
        spoil(tuned)
        return right(tuned)

    monkeypatch.setattr(merging.tuners, "merge", wrong)
    made = plan(checkpoint, tiny_llama_dir)
    with pytest.raises(CheckFailed) as error:
        merge(made)
    assert error.value.exit_code == 1 and "logits differ" in str(error.value.why)
    assert [path.name for path in made.target.parent.iterdir() if "merged" in path.name] == [
        f"checkpoint-3-merged.{REPORT}"
    ]


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _change_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] += 1e-6
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _lose_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {n: t for n, t in tensors.items() if n != "model.norm.weight"}, folder / "model.safetensors", {"format": "pt"}
    )


@pytest.mark.parametrize("spoil", [_cut, _change_a_tensor, _lose_a_tensor])
def test_damage_on_the_way_to_disk_is_caught(
    spoil: Callable[[Path], None], checkpoint: Path, tiny_llama_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = models.fetch

    def spoiled(model: ModelPlan) -> Path:
        if ".tmp-" in model.source:
            spoil(Path(model.source))
        return fetch(model)

    monkeypatch.setattr(merging.models, "fetch", spoiled)
    made = plan(checkpoint, tiny_llama_dir)
    with pytest.raises(CheckFailed):
        merge(made)
    assert not made.target.exists()


def test_another_base_is_refused(checkpoint: Path, tiny_llama_dir: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny_llama_dir, tmp_path / "other"))
    tensors = load_file(other / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"] += 0.01
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(SwiftError, match="is not the model") as error:
        merge(plan(checkpoint, other))
    assert error.value.exit_code == 2


def test_a_finished_merge_is_left_alone(checkpoint: Path, tiny_llama_dir: Path) -> None:
    made = plan(checkpoint, tiny_llama_dir)
    folder = merge(made)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert merge(made) == folder and (folder / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(SwiftError, match="is not this merge"):
        merge(replace(made, model=replace(made.model, dtype="bf16")))
    (folder / "config.json").write_text("{}")
    with pytest.raises(SwiftError, match="is not this merge") as error:
        merge(made)
    assert "config.json" in str(error.value.why)


def test_a_finished_merge_is_reused_for_the_same_question_only(
    checkpoint: Path, tiny_llama_dir: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(tiny_llama_dir, tmp_path / "other"))
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"] += 0.01
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    question = plan(checkpoint, tiny_llama_dir)
    folder = merge(question)

    def why(changed: MergePlan) -> str:
        with pytest.raises(SwiftError, match="is not this merge") as error:
            merge(changed)
        return str(error.value.why)

    unlike = replace(question.model, source=str(other), ignore_base_mismatch=True)
    assert f"into other weights, those of {tiny_llama_dir}" in why(replace(question, model=unlike))
    assert "its weights are safetensors and --save_safetensors asks for bin files" in why(
        replace(question, safetensors=False)
    )
    config = checkpoint / "adapter_config.json"
    text = config.read_text()
    config.write_text(text.replace('"lora_alpha": 32', '"lora_alpha": 16'))
    assert "another adapter" in why(question)
    config.write_text(text)
    assert merge(question) == folder
    report = json.loads((folder / REPORT).read_text())
    del report["base_identity"]
    (folder / REPORT).write_text(json.dumps(report))
    seal(folder)
    assert "does not record which weights" in why(question)


def test_a_full_disk_is_said_and_leaves_nothing(checkpoint: Path, tiny_llama_dir: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for safetensors in (True, False):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
            with pytest.raises(SwiftError, match="could not be written") as error:
                merge(plan(checkpoint, tiny_llama_dir, safetensors=safetensors))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert error.value.why and "room" in str(error.value.next)
        assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


def test_prompts_reach_over_the_vocabulary(tiny_llama_dir: Path) -> None:
    prompts = model_comparison.prompts(models.load_tokenizer(base_plan(tiny_llama_dir)), 49152)
    assert len(prompts) == 6 and max(prompts[-1]) > 40000 and all(prompts)
