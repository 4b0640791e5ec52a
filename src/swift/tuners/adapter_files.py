"""Adapters and tuned models on disk: written so that PEFT reads them too, read back strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from swift.core.errors import SwiftError
from swift.core.safetensors_header import read_header
from swift.plan.model import ModelPlan
from swift.plan.tuner import TunerPlan
from swift.tuners.loraplus import EMBEDDING_LR

if TYPE_CHECKING:
    from peft import PeftConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a checkpoint says about its making, beside the weights."""

    model: ModelPlan
    tuner: TunerPlan
    template_type: str | None = None
    system: str | None = None
    base: Mapping[str, Any] | None = None
    """`models.identity` of the base the adapter was trained on."""


def save(
    model: nn.Module, folder: Path, card: Card | None = None, *, state_dict: Mapping[str, Tensor] | None = None
) -> None:
    """Write the trained part of `model` into the existing `folder`: an adapter, or for `full` the whole model.

    `state_dict` replaces the model's own where a distributed run had to gather it. The files, also readable by PEFT,
    are listed in docs/checkpoints; the tokenizer is the caller's.
    """
    if isinstance(model, PreTrainedModel):
        model.save_pretrained(folder, state_dict=dict(state_dict) if state_dict is not None else None)
        return
    from peft import PeftModel

    from swift.tuners import initial_factors

    if not isinstance(model, PeftModel):
        raise TypeError(f"{type(model).__name__} is neither a PreTrainedModel nor a PeftModel")
    tensors = adapter_tensors(model, state_dict)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS, {"format": "pt"})
    initial_factors.write(model, folder)
    _write_config(model, folder)
    base = model.get_base_model()
    if isinstance(base, PreTrainedModel) and base.generation_config is not None:
        base.generation_config.save_pretrained(folder)
    _write_card(card, folder)


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter as its folder has it."""

    folder: Path
    config: PeftConfig
    tensors: Mapping[str, Tensor]
    """On the CPU, by the names they have in the file."""
    factors: Mapping[str, Tensor] | None = None
    """What `initial_factors` wrote beside it."""

    @property
    def kind(self) -> str:
        """PEFT's name for the method."""
        from peft import PeftType

        return PeftType(self.config.peft_type).value


def read_adapter(folder: Path) -> Adapter:
    """Configuration and tensors. Raises SwiftError for what is missing, damaged or unknown to PEFT."""
    import peft

    from swift.tuners import initial_factors
    from swift.tuners.peft_tuners import known_warnings

    path = folder / CONFIG
    if not path.is_file():
        raise SwiftError(f"{folder} holds no adapter", next=f"give a folder with {CONFIG}")
    try:
        with known_warnings():
            config = peft.PeftConfig.from_pretrained(str(folder))
    except (KeyError, TypeError, ValueError) as error:
        raise SwiftError(
            f"{path} is not a configuration that PEFT {peft.__version__} can read",
            why=str(error),
            next="pip install -U peft, or copy the adapter again",
        ) from error
    tensors = _said_once(_read_tensors(folder))
    return Adapter(folder=folder, config=config, tensors=tensors, factors=initial_factors.read(folder))


def adapter_tensors(
    model: Any, state_dict: Mapping[str, Tensor] | None = None, *, name: str = "default"
) -> dict[str, Tensor]:
    """What PEFT saves of the adapter `name`, without the embeddings of the base."""
    from peft import get_peft_model_state_dict

    tensors = model.state_dict() if state_dict is None else dict(state_dict)
    return get_peft_model_state_dict(model, state_dict=tensors, adapter_name=name, save_embedding_layers=False)


def _said_once(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what PEFT writes twice of modules saved whole where it saves the embeddings too."""
    own = ".modules_to_save."
    renamed = {key.replace(own, "."): tensor for key, tensor in tensors.items() if own in key}
    plain = {key: tensor for key, tensor in tensors.items() if own not in key and ".original_module." not in key}
    return {**plain, **renamed}


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        if (folder / "adapter_model.bin").is_file():
            return _read_pickle(folder / "adapter_model.bin")
        raise SwiftError(f"{folder} has no {WEIGHTS}", next="give a checkpoint folder that training wrote")
    read_header(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise SwiftError(f"{path} cannot be read", why=str(error), next="use another checkpoint") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, OSError, RuntimeError, UnpicklingError) as error:
        raise SwiftError(
            f"{path} cannot be read", why=str(error).partition("\n")[0], next="use another checkpoint"
        ) from error


def _write_config(model: Any, folder: Path) -> None:
    """adapter_config.json as PEFT writes it, with sets in a fixed order."""
    config = model.peft_config[model.active_adapter]
    fields = {**config.to_dict(), "inference_mode": True}
    fields["base_model_name_or_path"] = model.get_base_model().name_or_path
    ordered = {name: sorted(value) if isinstance(value, set) else value for name, value in fields.items()}
    if isinstance(ordered.get("target_modules"), list):
        ordered["target_modules"] = sorted(ordered["target_modules"])
    _write_json(folder / CONFIG, dict(sorted(ordered.items())))


def _write_card(card: Card | None, folder: Path) -> None:
    additional = {
        "lora_dtype": card.tuner.dtype if card else None,
        "lorap_lr_ratio": card.tuner.lora_lr_ratio if card else None,
        "lorap_emb_lr": EMBEDDING_LR,
    }
    _write_json(folder / "additional_config.json", additional)
    if card is None:
        return
    adapter = {
        "model_id_or_path": card.model.source,
        "model_revision": card.model.revision,
        "sft_type": card.tuner.sft_type,
        "tuner_backend": card.tuner.tuner_backend,
        "template_type": card.template_type,
        "dtype": card.model.dtype,
        "system": card.system,
    }
    _write_json(folder / "configuration.json", {"adapter_cfg": adapter, "base_identity": card.base})
    (folder / "README.md").write_text(_readme(card), encoding="utf-8")


def _readme(card: Card) -> str:
    return (
        f"---\nbase_model: {card.model.source}\nlibrary_name: peft\n---\n\n"
        f"# {card.tuner.sft_type} adapter for {card.model.model_type}\n\n"
        f"Base model: `{card.model.source}`. Chat template: `{card.template_type}`. Tuner: {card.tuner.summary()}.\n\n"
        "Use it with `swift infer --ckpt_dir <this folder>`, or with PEFT on the base model.\n"
    )


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
