"""What is trained: the tuning method and the modules it touches."""

from __future__ import annotations

from typing import Annotated, Literal

from swift.params.flag import Alias, Basic, Known, Range, Saved
from swift.params.frozen import Frozen
from swift.params.groups.model import Dtype

SftType = Literal[
    "lora", "full", "longlora", "adalora", "ia3", "llamapro", "adapter", "vera", "boft", "fourierft", "reft"
]


class Tuner(Frozen):
    """The tuning method and the modules it touches."""

    sft_type: Annotated[SftType, Basic(), Saved("model")] = "lora"
    """Tuning method. QLoRA is lora with quantization_bit 4."""
    tuner_backend: Literal["swift", "peft", "unsloth"] = "peft"
    """Library that implements the adapters. swift writes the files of the 2.5 release; unsloth trains lora and full on
    one GPU."""
    target_modules: Annotated[tuple[str, ...], Basic(), Known(("DEFAULT", "AUTO", "ALL", "EMBEDDING"))] = ("DEFAULT",)
    """Modules that get adapters: DEFAULT or AUTO (attention q, k, v of an LLM; decoder
    and projector of a multimodal model), ALL (every linear layer but the
    head), EMBEDDING, or names."""
    target_regex: str | None = None
    """Regular expression for module names that get adapters; overrides target_modules. For lora, vera, boft, ia3,
    adalora, fourierft."""
    modules_to_save: Annotated[tuple[str, ...], Known(("EMBEDDING", "LN"))] = ()
    """Further modules that are trained and saved whole: EMBEDDING, LN, or names."""
    freeze_vit: Annotated[bool, Basic()] = False
    """Leave the vision tower of a multimodal model alone. Adapters do so unless this is given as false."""
    freeze_parameters: tuple[str, ...] = ()
    """Names (beginnings) of parameters that full tuning leaves alone."""
    freeze_parameters_ratio: Annotated[float, Range(0, 1)] = 0.0
    """Share of the parameters, from the bottom up, that full tuning leaves alone."""
    additional_trainable_parameters: tuple[str, ...] = ()
    """Names (beginnings) of parameters that full tuning trains although they were frozen."""
    lora_target_modules: Annotated[tuple[str, ...], Alias("target_modules")] = ()
    """Another spelling of target_modules."""
    lora_target_regex: Annotated[str | None, Alias("target_regex")] = None
    """Another spelling of target_regex."""
    lora_modules_to_save: Annotated[tuple[str, ...], Alias("modules_to_save")] = ()
    """Another spelling of modules_to_save."""
    boft_target_modules: Annotated[tuple[str, ...], Alias("target_modules")] = ()
    """Another spelling of target_modules."""
    boft_modules_to_save: Annotated[tuple[str, ...], Alias("modules_to_save")] = ()
    """Another spelling of modules_to_save."""
    vera_target_modules: Annotated[tuple[str, ...], Alias("target_modules")] = ()
    """Another spelling of target_modules."""
    vera_modules_to_save: Annotated[tuple[str, ...], Alias("modules_to_save")] = ()
    """Another spelling of modules_to_save."""
    ia3_target_modules: Annotated[tuple[str, ...], Alias("target_modules")] = ()
    """Another spelling of target_modules."""
    ia3_modules_to_save: Annotated[tuple[str, ...], Alias("modules_to_save")] = ()
    """Another spelling of modules_to_save."""


class Lora(Frozen):
    """LoRA and its variants."""

    lora_rank: Annotated[int, Basic(), Range(1)] = 8
    """Rank of the LoRA matrices."""
    lora_alpha: Annotated[int, Basic(), Range(1)] = 32
    """LoRA scale: the update is multiplied by lora_alpha / lora_rank."""
    lora_dropout: Annotated[float, Range(0, 1)] = 0.05
    """Dropout on the LoRA path (lora only)."""
    lora_dtype: Dtype = "AUTO"
    """dtype of the LoRA weights; AUTO follows the module they belong to."""
    lora_bias_trainable: Literal["none", "all"] = "none"
    """Train the bias terms too: none or all."""
    init_lora_weights: Annotated[
        bool | str, Known(("true", "false", "guassian", "pissa", "pissa_niter_[number of iters]"))
    ] = True
    """How LoRA starts: true (no change at first), false, gaussian, pissa, pissa_niter_N, olora, loftq."""
    use_dora: bool = False
    """Use DoRA."""
    use_rslora: bool = False
    """Use rank-stabilised LoRA."""
    lora_lr_ratio: Annotated[float | None, Range(0, above=True)] = None
    """Turns LoRA+ on: ratio of the learning rates of B and A; 10 to 16 advised."""
    lora_dropout_p: Annotated[float | None, Alias("lora_dropout"), Range(0, 1)] = None
    """Another spelling of lora_dropout."""
