"""LoRAs of several names on one model, by PEFT."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import peft
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from swift.core.errors import SwiftError
from swift.tuners import initial_factors
from swift.tuners.adapter_files import read_adapter
from swift.tuners.peft_tuners import known_warnings


def attach(model: nn.Module, name: str, folder: Path) -> peft.PeftModel:
    """`model` with the adapter in `folder` on it as `name`, beside those it has. Raises SwiftError for a misfit."""
    config, tensors = _read(folder)
    tuned = model if isinstance(model, peft.PeftModel) else None
    try:
        with known_warnings():
            if tuned is not None:
                tuned.add_adapter(name, config, autocast_adapter_dtype=False)
            else:
                assert isinstance(model, PreTrainedModel)
                found = peft.get_peft_model(model, config, adapter_name=name, autocast_adapter_dtype=False)
                assert isinstance(found, peft.PeftModel)
                tuned = found
        loaded = peft.set_peft_model_state_dict(tuned, tensors, adapter_name=name)
    except (ValueError, RuntimeError) as error:
        _take_off(model, tuned, name)
        raise SwiftError(
            f"the adapter `{name}` does not go with this model", where=str(folder), why=str(error).splitlines()[0]
        ) from error
    missing = [key for key in loaded.missing_keys if f".{name}." in key]
    if missing or loaded.unexpected_keys:
        _take_off(model, tuned, name)
        wrong = missing[0] if missing else loaded.unexpected_keys[0]
        raise SwiftError(
            f"the adapter `{name}` does not fit the model",
            where=str(folder),
            why=f"{wrong} is {'missing from' if missing else 'only in'} its weights",
            next="give the adapter of this base model",
        )
    tuned.eval()
    return tuned


def share_a_batch(model: peft.PeftModel) -> bool:
    """Whether PEFT runs all of the model's adapters in one batch, each on its own rows."""
    return all(
        isinstance(config, peft.LoraConfig) and config.peft_type == peft.PeftType.LORA and not config.use_dora
        for config in model.peft_config.values()
    )


def _take_off(before: nn.Module, tuned: peft.PeftModel | None, name: str) -> None:
    """Leave the model as it was `before` the attempt."""
    if tuned is None:
        return
    if before is not tuned:
        tuned.unload()
    elif name in tuned.peft_config:
        tuned.delete_adapter(name)


def _read(folder: Path) -> tuple[peft.PeftConfig, dict[str, Tensor]]:
    if not (folder / "adapter_config.json").is_file():
        raise SwiftError(f"{folder} holds no adapter", next="give a folder with adapter_config.json")
    config = peft.PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    tensors, factors = read_adapter(folder), initial_factors.read(folder)
    if factors is not None and isinstance(config, peft.LoraConfig):
        tensors = _beside_untouched_base(config, tensors, factors)
    return config, tensors


def _beside_untouched_base(
    config: peft.LoraConfig, tensors: Mapping[str, Tensor], factors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The LoRA of twice the rank that does what training on W - s B0 A0 did, so that others may share the base.

    s B A + W - s B0 A0 = W + s [B, -B0] [A; A0]. `config` is changed to the new rank, with the same scaling s.
    """
    growth = 2 if not config.use_rslora else math.sqrt(2)
    config.init_lora_weights = True
    config.r *= 2
    config.lora_alpha *= growth  # type: ignore[assignment]  # PEFT divides it, whole or not
    config.rank_pattern = {name: 2 * rank for name, rank in (config.rank_pattern or {}).items()}
    config.alpha_pattern = {name: growth * alpha for name, alpha in (config.alpha_pattern or {}).items()}
    widened = dict(tensors)
    for key, tensor in tensors.items():
        for factor, dim, sign in (("A", 0, 1), ("B", 1, -1)):
            end = f".lora_{factor}.weight"
            if key.endswith(end):
                start = factors[f"{key.removesuffix(end)}.{factor}"].to(tensor.dtype)
                widened[key] = torch.cat([tensor, sign * start], dim=dim)
    return widened
