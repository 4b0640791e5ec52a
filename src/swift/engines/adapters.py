"""Several LoRAs on one model, by name, and the forward pass that gives each row of a batch its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor
from transformers import PreTrainedModel

from swift.core.errors import SwiftError
from swift.tuners import initial
from swift.tuners.adapters import known_warnings
from swift.tuners.checkpoint import read_adapter

BASE = "__base__"
"""PEFT's name for the rows of a mixed batch that no adapter touches."""


class AdaptedModel:
    """A model and its adapters."""

    def __init__(self, model: PreTrainedModel):
        self.base = model
        self.own_attention = model.config._attn_implementation or "sdpa"
        self.names: tuple[str, ...] = ()
        self._model: Any = model
        self._active: str | None = None
        self._mixes = True

    def add(self, name: str, folder: Path) -> None:
        """Put the adapter in `folder` on the model as `name`. Raises SwiftError when it does not fit the base."""
        config, tensors = _read(folder)
        if name in self.names:
            self.remove(name)
        try:
            with known_warnings():
                if isinstance(self._model, peft.PeftModel):
                    self._model.add_adapter(name, config, autocast_adapter_dtype=False)
                else:
                    self._model = peft.get_peft_model(
                        self.base, config, adapter_name=name, autocast_adapter_dtype=False
                    )
            loaded = peft.set_peft_model_state_dict(self._model, tensors, adapter_name=name)
        except (ValueError, RuntimeError) as error:
            if isinstance(self._model, peft.PeftModel) and name in self._model.peft_config:
                self._model.delete_adapter(name)
            raise SwiftError(
                f"the adapter `{name}` does not go with this model", where=str(folder), why=str(error).splitlines()[0]
            ) from error
        self.names = (*self.names, name)
        missing = [key for key in loaded.missing_keys if f".{name}." in key]
        if missing or loaded.unexpected_keys:
            self.remove(name)
            wrong = missing[0] if missing else loaded.unexpected_keys[0]
            raise SwiftError(
                f"the adapter `{name}` does not fit the model",
                where=str(folder),
                why=f"{wrong} is {'missing from' if missing else 'only in'} its weights",
                next="give the adapter of this base model",
            )
        self._model.eval()
        self._mixes = all(_mixes(config) for config in self._model.peft_config.values())
        self._activate(name)

    def remove(self, name: str) -> None:
        """Take the adapter `name` off."""
        self._model.delete_adapter(name)
        self.names = tuple(each for each in self.names if each != name)
        self._active = None

    def groups(self, adapters: Sequence[str | None]) -> list[list[int]]:
        """The numbers of the rows that may share a forward pass: all of them, or those of one adapter at a time."""
        if self._mixes:
            return [list(range(len(adapters)))]
        grouped: dict[str | None, list[int]] = {}
        for number, name in enumerate(adapters):
            grouped.setdefault(name, []).append(number)
        return list(grouped.values())

    def forward(self, adapters: Sequence[str | None], **inputs: Any) -> Any:
        """The model's output for a batch whose row i uses `adapters[i]`."""
        if not self.names:
            return self.base(**inputs)
        wanted = set(adapters)
        if len(wanted) == 1:
            self._activate(next(iter(wanted)))
            return self._model(**inputs)
        if self._active is None:
            self._activate(self.names[0])
        return self._model(**inputs, adapter_names=[name or BASE for name in adapters])

    def generate(self, adapter: str | None, **inputs: Any) -> Tensor:
        """transformers' `generate` with one adapter, and with the attention the model was loaded with."""
        engines = self.base.config._attn_implementation or self.own_attention
        self.base.set_attn_implementation(self.own_attention)
        try:
            if self.names:
                self._activate(adapter)
            return self._model.generate(**inputs)
        finally:
            self.base.set_attn_implementation(engines)

    def close(self) -> None:
        """Give the model back as it was loaded."""
        self.base.set_attn_implementation(self.own_attention)

    def _activate(self, name: str | None) -> None:
        if name == self._active and name is not None:
            return
        if name is None:
            if self._active is not None:
                self._model.base_model.disable_adapter_layers()
        else:
            self._model.base_model.enable_adapter_layers()
            self._model.set_adapter(name)
        self._active = name


def _mixes(config: peft.PeftConfig) -> bool:
    """Whether PEFT runs this adapter beside others in one batch."""
    return isinstance(config, peft.LoraConfig) and config.peft_type == peft.PeftType.LORA and not config.use_dora


def _read(folder: Path) -> tuple[peft.PeftConfig, dict[str, Tensor]]:
    if not (folder / "adapter_config.json").is_file():
        raise SwiftError(f"{folder} holds no adapter", next="give a folder with adapter_config.json")
    config = peft.PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    tensors, factors = read_adapter(folder), initial.read(folder)
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
