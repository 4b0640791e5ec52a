"""Which parameters a run trains, and how. Pure; `swift.tuners.attach` carries it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from swift.core.errors import SwiftError
from swift.params.args import Args
from swift.params.groups import Lora, Tuner
from swift.plan.model import ModelPlan
from swift.plan.tuner_settings import SETTINGS

ON_QUANTIZED: Mapping[str, tuple[str, ...]] = {
    "bnb": ("lora", "longlora", "adalora", "ia3", "vera"),
    "bitsandbytes": ("lora", "longlora", "adalora", "ia3", "vera"),
    "gptq": ("lora", "longlora", "adalora"),
}
"""The sft types that PEFT carries out on weights quantized with a method; LoRA alone on any other.

transformers trains on quantized weights through PEFT alone, so adapter and reft are not among them."""
WITHOUT_TARGETS = ("adapter", "reft", "llamapro")
"""The sft types that look for their places in the layers themselves."""


@dataclass(frozen=True)
class Parts:
    """Paths of the modules of a multimodal model. A projector may lie inside the tower."""

    tower: tuple[str, ...]
    projector: tuple[str, ...]
    decoder: tuple[str, ...]

    def part_of(self, path: str) -> Literal["tower", "projector", "decoder"]:
        """`tower`, `projector` or `decoder`, by the path of a module or parameter; the head is of the decoder."""
        if _below(path, self.projector):
            return "projector"
        return "tower" if _below(path, self.tower) else "decoder"


def _below(path: str, modules: tuple[str, ...]) -> bool:
    return any(path == module or path.startswith(f"{module}.") for module in modules)


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
    """The method's own (`swift.plan.tuner_settings`): for those of PEFT the keyword arguments of its configuration."""
    parts: Parts | None = None
    """The parts of a multimodal model, known when its config.json has been read."""
    freeze_vit: bool | None = None
    """Leave the tower of a multimodal model alone; None, where nobody said, leaves it alone for adapters only."""

    def summary(self) -> str:
        """One line for the plan that a command prints."""
        if self.sft_type == "full":
            parts = [f"freeze {share:.0%}" for share in (self.freeze_parameters_ratio,) if share]
            parts += [f"freeze {', '.join(names)}" for names in (self.freeze_parameters,) if names]
            parts += [f"train {', '.join(names)}" for names in (self.additional_trainable_parameters,) if names]
            return ", ".join(["full", *parts])
        shown = ("r", "lora_alpha", "n_frequency", "intervention_type", "adapter_length", "num_new_blocks")
        sizes = [f"{name} {self.settings[name]}" for name in shown if name in self.settings]
        if self.sft_type in WITHOUT_TARGETS:
            return ", ".join([self.sft_type, *sizes])
        targets = self.target_regex or ", ".join(self.target_modules)
        return ", ".join([self.sft_type, *sizes, f"targets {targets}"])


def plan_tuner(args: Args, model: ModelPlan) -> TunerPlan:
    """The tuner that the flags ask for. Raises SwiftError for what it cannot do with the weights of this model.

    What flags say among themselves is refused before, in `swift.params.rules`.
    """
    tuner = args[Tuner]
    if tuner.sft_type == "full":
        return _plan_full(tuner, model, _freeze_vit(args))
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
        settings=SETTINGS[tuner.sft_type](args),
        freeze_vit=_freeze_vit(args),
    )


def _freeze_vit(args: Args) -> bool | None:
    given = args.origins.get("freeze_vit", "default") not in ("default", "command")
    return args[Tuner].freeze_vit if given else None


def _plan_full(tuner: Tuner, model: ModelPlan, freeze_vit: bool | None) -> TunerPlan:
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
        freeze_vit=freeze_vit,
    )


def _check_quantized(sft_type: str, lora: Lora, model: ModelPlan) -> None:
    """Raise SwiftError for what an adapter cannot do with quantized weights below it."""
    base = model.quant or model.stored_quant
    if base is None:
        return
    method = base.method
    able = ON_QUANTIZED.get(method, ("lora", "longlora"))
    if sft_type not in able:
        raise SwiftError(
            f"--sft_type {sft_type} does not work on weights quantized with {method}",
            where="--sft_type",
            next=f"use {', '.join(able[:-1])} or {able[-1]}",
        )
    start = str(lora.init_lora_weights).lower()
    if sft_type in ("lora", "longlora") and start.startswith(("pissa", "olora", "loftq")):
        raise SwiftError(
            f"--init_lora_weights {start} does not work on a quantized base",
            where="--init_lora_weights",
            why="it takes a part of the full base weights into the adapter, and rounds or changes the rest itself",
            next="use true or gaussian",
        )
    if method == "hqq" and lora.lora_bias_trainable != "none":
        raise SwiftError(
            "the biases of HQQ layers cannot be trained", where="--lora_bias_trainable", next="leave it out"
        )


def starts_as_the_base(tuner: TunerPlan) -> bool:
    """Whether a new adapter changes nothing at first, and the base is what remains when it is switched off."""
    start = tuner.settings.get("init_lora_weights", True)
    if tuner.sft_type in ("fourierft", "reft", "llamapro"):  # the first two start at random, and layers stay
        return False
    return start in (True, "gaussian") and tuner.settings.get("bias", "none") == "none"
