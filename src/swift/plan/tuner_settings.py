"""The own flags of each tuning method as the settings that carry it out, in a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from swift.params.args import Args
from swift.params.groups import Adalora, Adapter, Boft, Fourierft, Ia3, Llamapro, Lora, Reft, Vera
from swift.plan.json_flag import json_mapping


def _lora(args: Args) -> dict[str, Any]:
    lora = args[Lora]
    return {
        "r": lora.lora_rank,
        "lora_alpha": lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "bias": lora.lora_bias_trainable,
        "init_lora_weights": _initial_weights(lora.init_lora_weights),
        "use_dora": lora.use_dora,
        "use_rslora": lora.use_rslora,
    }


def _initial_weights(given: bool | str) -> bool | str:
    """`--init_lora_weights` as PEFT takes it. `guassian` is how the 2.5 release spells gaussian."""
    text = str(given).lower()
    if text in ("true", "false"):
        return text == "true"
    return "gaussian" if text == "guassian" else text


def _adalora(args: Args) -> dict[str, Any]:
    lora, adalora = args[Lora], args[Adalora]
    return {
        "init_r": adalora.adalora_init_r,
        "target_r": adalora.adalora_target_r,
        "tinit": adalora.adalora_tinit,
        "tfinal": adalora.adalora_tfinal,
        "deltaT": adalora.adalora_deltaT,
        "beta1": adalora.adalora_beta1,
        "beta2": adalora.adalora_beta2,
        "orth_reg_weight": adalora.adalora_orth_reg_weight,
        "lora_alpha": lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "bias": lora.lora_bias_trainable,
    }


def _ia3(args: Args) -> dict[str, Any]:
    return {"feedforward_modules": list(args[Ia3].ia3_feedforward_modules)}


def _vera(args: Args) -> dict[str, Any]:
    vera = args[Vera]
    key = vera.vera_projection_prng_key
    return {
        "r": vera.vera_rank,
        "projection_prng_key": 0 if isinstance(key, bool) else key,
        "save_projection": key is not False,
        "vera_dropout": vera.vera_dropout,
        "d_initial": vera.vera_d_initial,
    }


def _boft(args: Args) -> dict[str, Any]:
    boft = args[Boft]
    return {
        "boft_block_num": boft.boft_block_num,
        "boft_block_size": 0 if boft.boft_block_num else boft.boft_block_size,
        "boft_n_butterfly_factor": boft.boft_n_butterfly_factor,
        "boft_dropout": boft.boft_dropout,
    }


def _fourierft(args: Args) -> dict[str, Any]:
    fourier = args[Fourierft]
    return {"n_frequency": fourier.fourier_n_frequency, "scaling": fourier.fourier_scaling}


def _adapter(args: Args) -> dict[str, Any]:
    adapter = args[Adapter]
    return {
        "act_layer": adapter.adapter_act,
        "adapter_length": adapter.adapter_length,
        "after_attention": adapter.adapter_after_attention,
    }


def _reft(args: Args) -> dict[str, Any]:
    reft = args[Reft]
    return {
        "layers": list(reft.reft_layers) if reft.reft_layers else None,
        "layer_key": reft.reft_layer_key,
        "r": reft.reft_rank,
        "intervention_type": reft.reft_intervention_type,
        "args": json_mapping(reft.reft_args, "--reft_args"),
    }


def _llamapro(args: Args) -> dict[str, Any]:
    llamapro = args[Llamapro]
    return {"num_new_blocks": llamapro.llamapro_num_new_blocks, "num_groups": llamapro.llamapro_num_groups}


SETTINGS: Mapping[str, Callable[[Args], dict[str, Any]]] = MappingProxyType(
    {
        "lora": _lora,
        "longlora": _lora,
        "adalora": _adalora,
        "ia3": _ia3,
        "vera": _vera,
        "boft": _boft,
        "fourierft": _fourierft,
        "adapter": _adapter,
        "reft": _reft,
        "llamapro": _llamapro,
    }
)
"""By `--sft_type`; `full` has none."""
