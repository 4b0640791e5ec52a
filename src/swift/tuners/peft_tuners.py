"""The methods PEFT carries out, one row each. Importing PEFT is slow, so only `swift.tuners` functions import this."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import peft
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from swift.compat.peft_3711 import names_as_given
from swift.core.errors import SwiftError
from swift.core.log import log
from swift.plan.tuner import TunerPlan
from swift.tuners import adalora, initial_factors, loftq
from swift.tuners.reached_layers import check_adapted, parameters_of_experts
from swift.tuners.target_modules import (
    ends_of_mlps,
    is_linear_by_name_only,
    matches,
    read_past,
    resolve_saved,
    resolve_targets,
)

CONFIGS: dict[str, type[peft.PeftConfig]] = {
    "lora": peft.LoraConfig,
    "longlora": peft.LoraConfig,
    "adalora": peft.AdaLoraConfig,
    "ia3": peft.IA3Config,
    "vera": peft.VeraConfig,
    "boft": peft.BOFTConfig,
    "fourierft": peft.FourierFTConfig,
}
TORCH_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
VALUES = frozenset({"v_proj", "v_lin", "value"})
"""Names that model families give the projection of values."""
GROUPS = ("DEFAULT", "AUTO", "ALL", "EMBEDDING")
"""Words of `--target_modules` that stand for the layers which a model has."""
ON_EMBEDDINGS = ("lora", "longlora")
"""Methods that also work on embedding layers."""


def attach_adapter(model: PreTrainedModel, plan: TunerPlan, total_steps: int | None) -> peft.PeftModel:
    """Wrap `model` in the plan's adapter; the base's own parameters are frozen."""
    targets = resolve_targets(model, plan)
    default = plan.target_regex is None and {name.upper() for name in plan.target_modules} <= {"DEFAULT", "AUTO"}
    if plan.sft_type == "vera" and default:
        targets = _shaped_as_values(model, targets)
    if plan.sft_type == "ia3" and not plan.settings["feedforward_modules"]:
        targets, ends = ends_of_mlps(model, targets, plan, add=default)
        plan = replace(plan, settings={**plan.settings, "feedforward_modules": ends})
    reached = _but_whole(model, plan, _reached(model, targets))
    _check_kinds(model, plan, reached)
    _check_saved(model, plan, reached)
    starts_rounded = plan.settings.get("init_lora_weights") == "loftq"
    settings = {**plan.settings, "init_lora_weights": True} if starts_rounded else plan.settings
    config = _config(model, replace(plan, settings=settings), targets, reached, total_steps)
    fused = parameters_of_experts(model)
    try:
        with known_warnings(), names_as_given(model):
            tuned = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    except (TypeError, ValueError) as error:
        raise _unfit(plan, error) from error
    check_adapted(tuned, reached)
    if isinstance(config, peft.BOFTConfig):
        _check_butterfly(tuned, config)
    if fused:
        log.info(
            "target_modules: %d layers; the experts' own weights (%s) stay as they are: they are no linear layers",
            len(reached),
            ", ".join(fused),
        )
    if initial_factors.takes_from_base(config):
        initial_factors.remember(tuned)
    if starts_rounded:
        loftq.start(tuned)
        loftq.mark(config)
    set_dtype(tuned, plan.dtype)
    return tuned


def set_dtype(model: peft.PeftModel, dtype: str | None) -> None:
    """Cast the adapter's weights. None leaves them as their modules are, except that fp16 trains in fp32.

    Gradient scaling cannot unscale gradients that are fp16 themselves.
    """
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if dtype is not None and ".modules_to_save." not in name:
            parameter.data = parameter.data.to(TORCH_DTYPES[dtype])
        elif parameter.dtype == torch.float16:
            parameter.data = parameter.data.float()


@contextmanager
def known_warnings() -> Iterator[None]:
    """Silence what PEFT says on every wrap and what is dealt with here."""
    with warnings.catch_warnings():
        # `merge` unties embeddings that an adapter sits on.
        warnings.filterwarnings("ignore", message=r"Model (with|has) `tie_word_embeddings=True`")
        # PEFT 0.21 asks transformers 5 by an older name.
        warnings.filterwarnings("ignore", message=r"`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        # It looks for fused experts among the modules, and they are parameters; their tensors are checked.
        warnings.filterwarnings("ignore", message=r"The following alpha_pattern keys did not match .*gate_up_proj")
        # AdaLoRA's saved ranks are keyed by parameter, which the check of PEFT 0.21 takes for module names.
        warnings.filterwarnings("ignore", message=r"The following rank_pattern keys did not match")
        # BOFT's kernel is optional, and its butterfly factor of 1 is what the flag says.
        warnings.filterwarnings("ignore", message=r"Setting boft_n_butterfly_factor to 1")
        warnings.filterwarnings("ignore", message=r"Failed to load the CUDA extension")
        # The flag says so.
        warnings.filterwarnings("ignore", message=r"Specified to not (save|load) vera_A and vera_B")
        # What is taken is checked tensor by tensor, and merges are compared with the adapter they come from.
        warnings.filterwarnings("ignore", message=r"(You have requested )?`?ensure_weight_tying")
        warnings.filterwarnings("ignore", message=r"Unsupported layer type .* encountered")
        warnings.filterwarnings("ignore", message=r"`lora_bias=True` was passed")
        warnings.filterwarnings("ignore", message=r"Detected that the base layer has no bias term")
        warnings.filterwarnings("ignore", message=r"Using Rank-Stabilized LoRA with rank_pattern")
        warnings.filterwarnings("ignore", message=r"(lora with eva initialization|`init_lora_weights` is 'eva')")
        warnings.filterwarnings("ignore", message=r"Sparse invariant checks are implicitly disabled")
        yield


def _config(
    model: PreTrainedModel,
    plan: TunerPlan,
    targets: list[str] | str,
    reached: dict[str, nn.Module],
    total_steps: int | None,
) -> peft.PeftConfig:
    settings: dict[str, Any] = {**plan.settings, "target_modules": targets}
    saved = resolve_saved(model, plan)
    if saved:
        settings["modules_to_save"] = saved
    if plan.sft_type != "boft" and all(isinstance(module, Conv1D) for module in reached.values()):
        settings["fan_in_fan_out"] = True
    if plan.sft_type == "ia3":
        _check_feedforward(settings)
    if plan.sft_type == "adalora":
        if not total_steps:
            raise ValueError("AdaLoRA needs total_steps")
        adalora.check_schedule(settings, total_steps)
        settings["total_step"] = total_steps
    try:
        with known_warnings():
            return CONFIGS[plan.sft_type](task_type="CAUSAL_LM", **settings)
    except ValueError as error:
        raise _unfit(plan, error) from error


def _unfit(plan: TunerPlan, error: Exception) -> SwiftError:
    """PEFT's own refusal of settings, as the user's mistake it is."""
    return SwiftError(f"{plan.sft_type} does not take these settings for this model", why=str(error))


def _check_butterfly(tuned: peft.PeftModel, config: peft.BOFTConfig) -> None:
    """PEFT takes a factor of 1, whatever was asked for, where it has not built its kernel."""
    factors = {p.shape[0] for name, p in tuned.named_parameters() if ".boft_R." in name}
    if factors != {config.boft_n_butterfly_factor}:
        raise SwiftError(
            f"--boft_n_butterfly_factor {config.boft_n_butterfly_factor} needs PEFT's kernel for BOFT",
            where="--boft_n_butterfly_factor",
            why="it is built with ninja and a CUDA compiler, on a machine with a GPU",
            next="leave it out",
        )


def _reached(model: PreTrainedModel, targets: list[str] | str) -> dict[str, nn.Module]:
    def hit(path: str) -> bool:
        if isinstance(targets, str):
            return re.fullmatch(targets, path) is not None
        return any(matches(path, name) for name in targets)

    return {path: module for path, module in model.named_modules() if path and hit(path)}


def _but_whole(model: PreTrainedModel, plan: TunerPlan, reached: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Without the layers of `--modules_to_save`, such as a projector, that nobody names: they are trained whole."""
    if plan.target_regex is not None:
        return reached
    saved = resolve_saved(model, plan)
    named = [name for name in plan.target_modules if name.upper() not in GROUPS]

    def whole(path: str) -> bool:
        steps = path.split(".")
        above = (".".join(steps[:depth]) for depth in range(1, len(steps) + 1))
        return any(matches(module, name) for module in above for name in saved)

    left = {
        path: module
        for path, module in reached.items()
        if not whole(path) or any(matches(path, name) for name in named)
    }
    if len(left) < len(reached):
        log.info("target_modules: %d layers are trained whole by --modules_to_save", len(reached) - len(left))
    return left


def _shaped_as_values(model: PreTrainedModel, targets: list[str] | str) -> list[str] | str:
    """VeRA's DEFAULT, as in 2.5: those shaped like the projection of values. Any shape works where it is named."""
    if isinstance(targets, str) or not VALUES & set(targets):
        return targets
    shapes = {name: {_shape(module) for module in _reached(model, [name]).values()} for name in targets}
    wanted = next(shapes[name] for name in targets if name in VALUES)
    others = [name for name in targets if shapes[name] != wanted]
    if others:
        log.info(
            "target_modules: DEFAULT of vera leaves %s out, whose shape is not that of the values; "
            "to train it too: --target_modules %s",
            ", ".join(others),
            " ".join(targets),
        )
    return [name for name in targets if name not in others]


def _shape(module: Any) -> tuple[int, int]:
    return (module.nx, module.nf) if isinstance(module, Conv1D) else (module.in_features, module.out_features)


def _check_kinds(model: PreTrainedModel, plan: TunerPlan, reached: dict[str, nn.Module]) -> None:
    idle = next((path for path in reached if read_past(model, path)), None)
    if idle:
        raise SwiftError(
            f"an adapter on {idle} would do nothing",
            where="--target_modules, --target_regex",
            why=f"{type(model).__name__} takes the weight of this layer itself instead of calling it",
            next="leave it out; --target_modules ALL names every other linear layer",
        )
    special = next((path for path, module in reached.items() if is_linear_by_name_only(module)), None)
    if special:
        raise SwiftError(
            f"{special} takes no adapter",
            where="--target_modules, --target_regex",
            why=f"{type(model.get_submodule(special)).__name__} does not map vectors as a linear layer does",
            next="leave it out; --target_modules ALL names every layer that takes one",
        )
    embedding = [path for path, module in reached.items() if isinstance(module, nn.Embedding)]
    if embedding and plan.sft_type not in ON_EMBEDDINGS:
        raise SwiftError(
            f"--sft_type {plan.sft_type} does not work on embeddings ({embedding[0]})",
            where="--target_modules",
            next="leave EMBEDDING out, or use --modules_to_save EMBEDDING",
        )
    if embedding and plan.settings.get("use_dora") and len(embedding) == len(reached):
        raise SwiftError(
            "--use_dora true does not work on embeddings alone", where="--use_dora", next="add ALL to --target_modules"
        )


def _check_saved(model: PreTrainedModel, plan: TunerPlan, reached: dict[str, nn.Module]) -> None:
    """A layer that is trained whole takes no adapter; PEFT would give it none, or train neither."""
    names = resolve_saved(model, plan)
    whole = [path for path, _ in model.named_modules() if path and any(matches(path, name) for name in names)]
    both = next((path for path in reached for above in whole if f"{path}.".startswith(f"{above}.")), None)
    if both is not None:
        raise SwiftError(
            f"{both} would be trained whole and have an adapter too",
            where="--modules_to_save, --target_modules",
            why="--modules_to_save trains all weights of what it names, and an adapter leaves them as they are",
            next="name it in one of the two",
        )


def _check_feedforward(settings: dict[str, Any]) -> None:
    targets = settings["target_modules"]
    outside = [name for name in settings["feedforward_modules"] if isinstance(targets, list) and name not in targets]
    if outside:
        raise SwiftError(
            f"--ia3_feedforward_modules names {outside[0]}, which is not among the targets",
            where="--ia3_feedforward_modules",
            why=f"the targets are {', '.join(targets)}",
            next=f"--target_modules {' '.join([*targets, *outside])}",
        )
