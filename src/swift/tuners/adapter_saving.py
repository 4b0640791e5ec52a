"""Adapters and tuned models on their way to disk, in PEFT's layout or that of 2.5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from swift.plan.model import ModelPlan
from swift.plan.tuner import TunerPlan
from swift.tuners import added_modules, swift_layout
from swift.tuners.attach import base_model
from swift.tuners.loraplus import EMBEDDING_LR
from swift.tuners.tensor_files import CONFIG, write_json, write_model, write_tensors


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a checkpoint says about its making, beside the weights."""

    model: ModelPlan
    tuner: TunerPlan
    template_type: str | None = None
    system: str | None = None
    base: Mapping[str, Any] | None = None
    """`models.identity` of the base the adapter was trained on."""
    safetensors: bool = True
    """False writes weights in the older format of PyTorch."""


def save(
    model: nn.Module, folder: Path, card: Card | None = None, *, state_dict: Mapping[str, Tensor] | None = None
) -> None:
    """Write the trained part of `model` into the existing `folder`: an adapter, or the whole model.

    `state_dict` replaces the model's own where a distributed run had to gather it. The files, also readable by PEFT
    unless the card asks for the 2.5 layout, are listed in docs/checkpoints; the tokenizer is the caller's.
    """
    as_swift = card is not None and card.tuner.tuner_backend == "swift"
    safetensors = card is None or card.safetensors
    if not isinstance(model, PreTrainedModel):
        _save_peft(model, folder, state_dict, safetensors=safetensors, as_swift=as_swift)
    elif added_modules.added_to(model):
        added_modules.save(model, folder, state_dict, safetensors=safetensors, as_swift=as_swift)
    elif as_swift and card is not None and card.tuner.sft_type == "llamapro":
        swift_layout.save_layers(model, folder, state_dict, safetensors=safetensors)
    else:
        write_model(model, folder, state_dict, safetensors=safetensors)
        return
    base = base_model(model)
    if base.generation_config is not None:
        base.generation_config.save_pretrained(folder)
    _write_card(card, folder)


def _save_peft(
    model: nn.Module, folder: Path, state_dict: Mapping[str, Tensor] | None, *, safetensors: bool, as_swift: bool
) -> None:
    from peft import PeftModel

    from swift.tuners import adalora, initial_factors
    from swift.tuners.adapter_files import adapter_tensors

    if not isinstance(model, PeftModel):
        raise TypeError(f"{type(model).__name__} is neither a PreTrainedModel nor a PeftModel")
    state = model.state_dict() if state_dict is None else state_dict
    tensors, fields = adapter_tensors(model, state), _config_fields(model)
    initial_factors.write(model, folder)
    adalora.write(model, folder, state)
    if as_swift:
        folder = folder / swift_layout.FOLDER
        folder.mkdir(exist_ok=True)
        tensors, fields = swift_layout.tensors_of_peft(tensors), swift_layout.fields_of_peft(fields)
    write_tensors(tensors, folder, safetensors=safetensors)
    write_json(folder / CONFIG, dict(sorted(fields.items())))


def _config_fields(model: Any) -> dict[str, Any]:
    """adapter_config.json as PEFT writes it, with sets in a fixed order."""
    config = model.peft_config[model.active_adapter]
    fields = {**config.to_dict(), "inference_mode": True}
    fields["base_model_name_or_path"] = model.get_base_model().name_or_path
    ordered = {name: sorted(value) if isinstance(value, set) else value for name, value in fields.items()}
    if isinstance(ordered.get("target_modules"), list):
        ordered["target_modules"] = sorted(ordered["target_modules"])
    return ordered


def _write_card(card: Card | None, folder: Path) -> None:
    if card is None:
        return
    if card.tuner.sft_type in ("lora", "longlora"):
        additional = {
            "lora_dtype": card.tuner.dtype,
            "lorap_lr_ratio": card.tuner.lora_lr_ratio,
            "lorap_emb_lr": EMBEDDING_LR,
        }
        write_json(folder / "additional_config.json", additional)
    adapter = {
        "model_id_or_path": card.model.source,
        "model_revision": card.model.revision,
        "sft_type": card.tuner.sft_type,
        "tuner_backend": card.tuner.tuner_backend,
        "template_type": card.template_type,
        "dtype": card.model.dtype,
        "system": card.system,
    }
    write_json(folder / "configuration.json", {"adapter_cfg": adapter, "base_identity": card.base})
