"""Which parameters a run trains, and how. Pure; `swift.tuners.attach` carries it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swift.core.errors import SwiftError
from swift.params.args import Args
from swift.params.groups import Adalora, Boft, Fourierft, Ia3, Lora, Tuner, Vera
from swift.plan.model import ModelPlan

ON_QUANTIZED: Mapping[str, tuple[str, ...]] = {
    "bnb": ("lora", "adalora", "ia3", "vera"),
    "bitsandbytes": ("lora", "adalora", "ia3", "vera"),
    "gptq": ("lora", "adalora"),
}
"""The sft types that PEFT carries out on weights quantized with a method; LoRA alone on any other."""


@dataclass(frozen=True, kw_only=True)
class TunerPlan:
    """One tuning method and its settings. For `full` the freeze fields count, for adapters the others."""

    sft_type: str
    target_modules: tuple[str, ...] = ("DEFAULT",)
    target_regex: str | None = None
    default_targets: tuple[str, ...] | str | None = None
    """What DEFAULT stands for: registered names, a regular expression, or None for "see the architecture"."""
    modules_to_save: tuple[str, ...] = ()
    freeze_parameters: tuple[str, ...] = ()
    freeze_parameters_ratio: float = 0.0
    additional_trainable_parameters: tuple[str, ...] = ()
    dtype: str | None = None
    """fp32, fp16 or bf16 of the adapter's weights; None follows the module each belongs to."""
    lora_lr_ratio: float | None = None
    tuner_backend: str = "peft"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the method's PEFT configuration."""

    def summary(self) -> str:
        """One line for the plan that a command prints."""
        if self.sft_type == "full":
            parts = [f"freeze {share:.0%}" for share in (self.freeze_parameters_ratio,) if share]
            parts += [f"freeze {', '.join(names)}" for names in (self.freeze_parameters,) if names]
            parts += [f"train {', '.join(names)}" for names in (self.additional_trainable_parameters,) if names]
            return ", ".join(["full", *parts])
        targets = self.target_regex or ", ".join(self.target_modules)
        shown = ("r", "lora_alpha", "n_frequency")
        sizes = [f"{name} {self.settings[name]}" for name in shown if name in self.settings]
        return ", ".join([self.sft_type, *sizes, f"targets {targets}"])


def plan_tuner(args: Args, model: ModelPlan) -> TunerPlan:
    """The tuner that the flags ask for. Raises SwiftError for what it cannot do with the weights of this model.

    What flags say among themselves is refused before, in `swift.params.rules` and `swift.params.unbuilt`.
    """
    tuner = args[Tuner]
    if tuner.sft_type == "full":
        return _plan_full(tuner, model)
    lora = args[Lora]
    _check_quantized(tuner.sft_type, lora, model)
    return TunerPlan(
        sft_type=tuner.sft_type,
        target_modules=tuple(tuner.target_modules),
        target_regex=tuner.target_regex,
        default_targets=model.lora_targets,
        modules_to_save=tuple(tuner.modules_to_save),
        dtype=None if lora.lora_dtype == "AUTO" else lora.lora_dtype,
        lora_lr_ratio=lora.lora_lr_ratio,
        tuner_backend=tuner.tuner_backend,
        settings=_settings(args, tuner.sft_type),
    )


def _settings(args: Args, sft_type: str) -> dict[str, Any]:
    """The method's own flags under PEFT's names."""
    if sft_type == "lora":
        return _lora(args[Lora])
    if sft_type == "adalora":
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
        }
    if sft_type == "ia3":
        return {"feedforward_modules": list(args[Ia3].ia3_feedforward_modules)}
    if sft_type == "vera":
        vera = args[Vera]
        return {
            "r": vera.vera_rank,
            "projection_prng_key": int(vera.vera_projection_prng_key),
            "vera_dropout": vera.vera_dropout,
            "d_initial": vera.vera_d_initial,
        }
    if sft_type == "boft":
        return _boft(args[Boft])
    fourier = args[Fourierft]
    return {"n_frequency": fourier.fourier_n_frequency, "scaling": fourier.fourier_scaling}


def _lora(lora: Lora) -> dict[str, Any]:
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


def _boft(boft: Boft) -> dict[str, Any]:
    return {
        "boft_block_num": boft.boft_block_num,
        "boft_block_size": 0 if boft.boft_block_num else boft.boft_block_size,
        "boft_n_butterfly_factor": boft.boft_n_butterfly_factor,
        "boft_dropout": boft.boft_dropout,
    }


def _plan_full(tuner: Tuner, model: ModelPlan) -> TunerPlan:
    if model.quant is not None or model.stored_quant is not None:
        raise SwiftError(
            f"--sft_type full cannot train a quantized model ({model.quant or model.stored_quant})",
            where="--quantization_bit" if model.quant else "--sft_type",
            why="quantized weights have no gradient",
            next=f"use --sft_type lora, or {'leave --quantization_bit out' if model.quant else 'its full weights'}",
        )
    return TunerPlan(
        sft_type="full",
        target_modules=(),
        freeze_parameters=tuple(tuner.freeze_parameters),
        freeze_parameters_ratio=tuner.freeze_parameters_ratio,
        additional_trainable_parameters=tuple(tuner.additional_trainable_parameters),
        tuner_backend=tuner.tuner_backend,
    )


def _check_quantized(sft_type: str, lora: Lora, model: ModelPlan) -> None:
    """Raise SwiftError for what an adapter cannot do with quantized weights below it."""
    base = model.quant or model.stored_quant
    if base is None:
        return
    method = base.method
    able = ON_QUANTIZED.get(method, ("lora",))
    if sft_type not in able:
        raise SwiftError(
            f"--sft_type {sft_type} does not work on weights quantized with {method}",
            where="--sft_type",
            next=f"use {' or '.join(able)}",
        )
    start = str(lora.init_lora_weights).lower()
    if sft_type == "lora" and start.startswith(("pissa", "olora")):
        raise SwiftError(
            f"--init_lora_weights {start} does not work on a quantized base",
            where="--init_lora_weights",
            why="it takes a part of the base weights into the adapter, and the rest would be quantized anew",
            next="use true or gaussian",
        )
    if method == "hqq" and lora.lora_bias_trainable != "none":
        raise SwiftError(
            "the biases of HQQ layers cannot be trained", where="--lora_bias_trainable", next="leave it out"
        )
