"""Adapters of every kind that PEFT has, made by plain PEFT with random weights: a new kind joins by a row."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import PreTrainedModel

ATTENTION = ["q_proj", "v_proj"]


def _on(kind: type[peft.PeftConfig], **settings: Any) -> Callable[[], peft.PeftConfig]:
    return lambda: kind(**{"target_modules": list(ATTENTION), "task_type": "CAUSAL_LM", **copy.deepcopy(settings)})


def _lora(**settings: Any) -> Callable[[], peft.PeftConfig]:
    return _on(peft.LoraConfig, **{"r": 4, "lora_alpha": 8, **settings})


def _prompt(kind: type[peft.PeftConfig], **settings: Any) -> Callable[[], peft.PeftConfig]:
    return lambda: kind(task_type="CAUSAL_LM", **settings)


KINDS: dict[str, Callable[[], peft.PeftConfig]] = {
    "lora": _lora(),
    "lora_ranks": _lora(target_modules="all-linear", rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 3}),
    "lora_rslora": _lora(use_rslora=True),
    "lora_embedding": _lora(target_modules=["embed_tokens", "q_proj"]),
    "lora_head": _lora(target_modules=["lm_head", "q_proj"]),
    "lora_both_ends": _lora(target_modules=["embed_tokens", "lm_head"]),
    "lora_regex": _lora(target_modules=r".*layers\.1\..*(q_proj|down_proj)"),
    "lora_layers": _lora(layers_to_transform=[1], layers_pattern="layers"),
    "lora_one_expert": _lora(target_modules=[], target_parameters=["q_proj.weight"]),
    "lora_bias_all": _lora(bias="all"),
    "lora_bias_lora_only": _lora(bias="lora_only"),
    "lora_own_bias": _lora(lora_bias=True),
    "dora": _lora(use_dora=True),
    "dora_bias": _lora(use_dora=True, bias="all"),
    "dora_embedding": _lora(use_dora=True, target_modules=["embed_tokens", "q_proj"]),
    "alora": _lora(alora_invocation_tokens=[5, 6]),
    "pissa": _lora(init_lora_weights="pissa"),
    "pissa_ranks": _lora(init_lora_weights="pissa", rank_pattern={"q_proj": 2}, use_rslora=True),
    "olora": _lora(init_lora_weights="olora"),
    "orthogonal": _lora(init_lora_weights="orthogonal"),
    "eva": _lora(init_lora_weights="eva"),
    "mica": _lora(init_lora_weights="mica"),
    "saved_head": _lora(modules_to_save=["lm_head"]),
    "saved_embedding": _lora(modules_to_save=["embed_tokens"]),
    "saved_ends": _lora(modules_to_save=["embed_tokens", "lm_head"]),
    "saved_tied": _lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    "saved_norms": _lora(modules_to_save=["input_layernorm", "norm"]),
    "saved_block": _lora(modules_to_save=["mlp"]),
    "tokens_beside_lora": _lora(trainable_token_indices=[3, 7, 11]),
    "tokens_tied": _lora(trainable_token_indices={"embed_tokens": [3, 7]}, ensure_weight_tying=True),
    "lora_tied": _lora(target_modules=["embed_tokens"], ensure_weight_tying=True),
    "tokens": _on(peft.TrainableTokensConfig, target_modules=["embed_tokens"], token_indices=[3, 7, 11]),
    "adalora": _on(peft.AdaLoraConfig, init_r=4, target_r=2, total_step=10, tinit=1, tfinal=1),
    "ia3": _on(peft.IA3Config, target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "ln_tuning": _on(peft.LNTuningConfig, target_modules=["input_layernorm", "norm"]),
    "loha": _on(peft.LoHaConfig, r=4),
    "lokr": _on(peft.LoKrConfig, r=4),
    "oft": _on(peft.OFTConfig, oft_block_size=8),
    "boft": _on(peft.BOFTConfig, boft_block_size=4),
    "boft_bias": _on(peft.BOFTConfig, boft_block_size=4, bias="boft_only"),
    "vera": _on(peft.VeraConfig, r=8, target_modules=["q_proj", "o_proj"]),
    "fourierft": _on(peft.FourierFTConfig, n_frequency=50),
    "hra": _on(peft.HRAConfig, r=4),
    "vblora": _on(peft.VBLoRAConfig, r=2, num_vectors=10, vector_length=8, topk=2),
    "miss": _on(peft.MissConfig, r=4),
    "randlora": _on(peft.RandLoraConfig, r=4, target_modules=["q_proj", "o_proj"]),
    "road": _on(peft.RoadConfig, group_size=8),
    "shira": _on(peft.ShiraConfig, r=2, random_seed=1),
    "c3a": _on(peft.C3AConfig, block_size=8),
    "waveft": _on(peft.WaveFTConfig, n_frequency=50),
    "delora": _on(peft.DeloraConfig, r=4),
    "gralora": _on(peft.GraloraConfig, r=4, gralora_k=2),
    "osf": _on(peft.OSFConfig, effective_rank=4),
    "hira": _on(peft.HiraConfig, r=4),
    "lily": _on(peft.LilyConfig, r=4, num_B=2, stride_A=1, target_modules=["q_proj"]),
    "peanut": _on(peft.PeanutConfig, r=4),
    "psoft": _on(peft.PsoftConfig, r=4),
    "pvera": _on(peft.PveraConfig, r=8, target_modules=["q_proj", "o_proj"]),
    "tinylora": _on(peft.TinyLoraConfig, r=2, u=8),
    "unilora": _on(peft.UniLoraConfig, r=2, theta_d_length=64),
    "deft": _on(peft.DeftConfig, r=4),
    "frod": _on(peft.FrodConfig, target_modules=["q_proj", "o_proj"], progressbar=False),
    "glora": _on(peft.GloraConfig, r=4),
    "beft": _on(peft.BeftConfig),
    "supertuning": _on(peft.SupertuningConfig, sparsity=0.9),
    "prompt_tuning": _prompt(peft.PromptTuningConfig, num_virtual_tokens=4),
    "prefix_tuning": _prompt(peft.PrefixTuningConfig, num_virtual_tokens=4),
    "p_tuning": _prompt(peft.PromptEncoderConfig, num_virtual_tokens=4, encoder_hidden_size=16),
    "adaption_prompt": _prompt(peft.AdaptionPromptConfig, adapter_len=4, adapter_layers=1),
    "poly": _on(peft.PolyConfig, r=4, n_tasks=2, n_skills=2, n_splits=1),
}
"""What each adapter is called in the tests, and the configuration that makes it."""

REFUSED = {
    "alora": "invocation tokens",
    "lily": "other rows",
    "prompt_tuning": "before every prompt",
    "prefix_tuning": "before every prompt",
    "p_tuning": "before every prompt",
    "adaption_prompt": "attention",
    "poly": "task",
}
"""Kinds that cannot be answered with token by token beside others, nor merged, and a word of the reason."""


def write_adapter(model: PreTrainedModel, folder: Path, kind: str, *, seed: int = 1) -> peft.PeftModel:
    """An adapter of `kind` on `model`, every trained weight changed at random, and saved to `folder` as PEFT does."""
    torch.manual_seed(seed)
    with warnings.catch_warnings(action="ignore"):  # what PEFT says to those who make adapters
        tuned = peft.get_peft_model(model, KINDS[kind]())
        with torch.no_grad():
            for parameter in tuned.parameters():
                if parameter.requires_grad and parameter.is_floating_point():
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        tuned.save_pretrained(str(folder))
    return tuned.eval()
