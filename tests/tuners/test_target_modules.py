"""Names of modules, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tuners.conftest import Plans
from transformers import AutoConfig, AutoModelForCausalLM

from swift import models, tuners
from swift.core.errors import SwiftError
from swift.plan.tuner import TunerPlan
from swift.tuners.target_modules import resolve_saved, resolve_targets

LINEAR = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("DEFAULT", ["k_proj", "q_proj", "v_proj"]),
        ("AUTO", ["k_proj", "q_proj", "v_proj"]),
        ("ALL", LINEAR),
        ("EMBEDDING", ["embed_tokens"]),
        ("ALL EMBEDDING", sorted([*LINEAR, "embed_tokens"])),
        ("self_attn.o_proj", ["self_attn.o_proj"]),
    ],
)
def test_groups_of_modules(given: str, found: list[str], small_llama: Path, plans: Plans) -> None:
    model_plan, plan = plans(small_llama, "--target_modules", *given.split())
    assert resolve_targets(models.load_model(model_plan), plan) == found


def test_an_expression_goes_before_names(small_llama: Path, plans: Plans) -> None:
    model_plan, plan = plans(small_llama, "--target_modules", "ALL", "--target_regex", r".*\.0\..*q_proj")
    tuned = tuners.attach(models.load_model(model_plan), plan)
    trained = [name for name, p in tuned.named_parameters() if p.requires_grad]
    assert trained and all("layers.0.self_attn.q_proj" in name for name in trained)


def test_modules_to_save_by_group(small_llama: Path, plans: Plans) -> None:
    model = models.load_model(plans(small_llama)[0])
    norms = ["input_layernorm", "norm", "post_attention_layernorm"]
    plan = TunerPlan(sft_type="lora", modules_to_save=("LN", "EMBEDDING", "lm_head"))
    assert resolve_saved(model, plan) == sorted([*norms, "embed_tokens", "lm_head"])


@pytest.mark.parametrize(
    ("flags", "what", "next"),
    [
        ("--target_modules qproj", "'qproj'", "did you mean q_proj?"),
        ("--modules_to_save lmhead", "'lmhead'", "did you mean lm_head?"),
        ("--target_modules self_attn", "takes no adapter", None),
        (
            "--target_modules q_proj lm_head --modules_to_save lm_head",
            "lm_head would be trained whole",
            "one of the two",
        ),
        ("--target_modules q_proj --modules_to_save self_attn", "q_proj would be trained whole", "one of the two"),
        ("--target_regex [", "not a regular expression", None),
        ("--target_regex q_proj", "matches no linear", "model.layers.0"),
        ("--sft_type ia3 --target_modules EMBEDDING", "does not work on embeddings", "leave EMBEDDING out"),
        ("--sft_type ia3 --ia3_feedforward_modules down_proj", "not among the targets", "down_proj"),
        ("--sft_type fourierft --fourier_n_frequency 2000", "does not take these settings", None),
        ("--sft_type adalora --adalora_tinit 6 --adalora_tfinal 4", "fill all 10 steps", "train longer"),
    ],
)
def test_wrong_names_are_said(flags: str, what: str, next: str | None, small_llama: Path, plans: Plans) -> None:
    model_plan, plan = plans(small_llama, *flags.split())
    with pytest.raises(SwiftError) as error:
        tuners.attach(models.load_model(model_plan), plan, total_steps=10)
    assert what in error.value.what
    assert next is None or next in str(error.value.next)


def test_default_follows_the_architecture(tmp_path: Path, plans: Plans) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    model_plan, plan = plans(tmp_path)
    tuned = tuners.attach(models.load_model(model_plan), plan)
    assert all("attn.c_attn" in name for name, p in tuned.named_parameters() if p.requires_grad)


def test_default_without_attention_lists_the_layers(tmp_path: Path, plans: Plans) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=50, hidden_size=16, state_size=4, num_hidden_layers=1)
    MambaForCausalLM(config).save_pretrained(tmp_path)
    model_plan, plan = plans(tmp_path)
    with pytest.raises(SwiftError, match="MambaForCausalLM") as error:
        tuners.attach(models.load_model(model_plan), plan)
    assert "in_proj" in str(error.value.why)


@pytest.mark.parametrize("kind", ["mamba", "jamba", "mamba2"])
def test_layers_whose_weight_the_model_takes_itself(kind: str, tmp_path: Path, plans: Plans) -> None:
    """An adapter there would not be trained, and its merge would change the answers."""
    settings = {
        "mamba": {},
        "jamba": {"num_experts": 2, "intermediate_size": 32, "attn_layer_period": 2, "attn_layer_offset": 1},
        "mamba2": {"state_size": 4, "num_heads": 4, "head_dim": 16, "n_groups": 1},
    }
    config = AutoConfig.for_model(kind, vocab_size=50, hidden_size=32, num_hidden_layers=2, **settings[kind])
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model_plan, plan = plans(tmp_path, "--target_modules", "ALL")
    tuned = tuners.attach(models.load_model(model_plan), plan)
    tuned(input_ids=torch.arange(20)[None]).logits.square().sum().backward()
    untrained = [name for name, p in tuned.named_parameters() if "lora_B" in name and not p.grad.any()]
    assert untrained == []
    name = "out_proj" if kind == "mamba2" else "dt_proj"
    with pytest.raises(SwiftError, match=f"{name} would do nothing"):
        tuners.attach(models.load_model(model_plan), plans(tmp_path, "--target_modules", name)[1])


DEEPSEEK_V4 = {
    "head_dim": 16,
    "qk_rope_head_dim": 8,
    "q_lora_rank": 16,
    "o_lora_rank": 16,
    "o_groups": 2,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
}


@pytest.mark.parametrize(
    ("kind", "settings", "name"),
    [
        ("llama4_text", {"head_dim": 16, "intermediate_size_mlp": 32, "num_local_experts": 2}, "router"),
        ("phimoe", {"num_local_experts": 2}, "router"),
        ("deepseek_v4", DEEPSEEK_V4, "o_a_proj"),
    ],
)
def test_layers_that_are_linear_by_name_only(
    kind: str, settings: dict[str, object], name: str, tmp_path: Path, plans: Plans
) -> None:
    """Routers answer with a pair, a grouped projection takes its groups apart: PEFT would fail in the first step."""
    config = AutoConfig.for_model(
        kind,
        vocab_size=50,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        **settings,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model_plan, plan = plans(tmp_path, "--target_modules", "ALL")
    targets = resolve_targets(models.load_model(model_plan), plan)
    assert not any(target.endswith(name) for target in targets) and any(
        target.endswith("q_b_proj") or target.endswith("q_proj") for target in targets
    )
    with pytest.raises(SwiftError, match=f"{name} takes no adapter"):
        tuners.attach(models.load_model(model_plan), plans(tmp_path, "--target_modules", name)[1])


def test_all_reaches_no_block_whose_name_is_a_layers(tmp_path: Path, plans: Plans) -> None:
    """CTRL calls two layers "0" and "2", as its blocks are called."""
    config = AutoConfig.for_model("ctrl", vocab_size=50, n_embd=32, n_layer=3, n_head=2, dff=32)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model_plan, plan = plans(tmp_path, "--target_modules", "ALL")
    tuned = tuners.attach(models.load_model(model_plan), plan)
    assert sum("lora_B" in name for name, _ in tuned.named_parameters()) == 3 * 6
