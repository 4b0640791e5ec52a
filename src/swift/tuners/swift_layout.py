"""The files that the 2.5 release writes with `--tuner_backend swift`, and PEFT's, turned into each other.

The adapter lies in a folder of its name, `default`. Its tensors are called as in the bare model, with that name before
the last part (`….q_proj.lora_A.default.weight`), and its configuration says `swift_type` where PEFT's says `peft_type`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from swift.core.errors import SwiftError
from swift.params.checkpoint_args import adapter_folder, adapter_kind
from swift.tuners import llamapro
from swift.tuners.loraplus import EMBEDDING_LR
from swift.tuners.tensor_files import CONFIG, read_tensors, write_json, write_tensors

FOLDER = "default"
PREFIX = "base_model.model."
PEFT_TYPES = {"LORA": "LORA", "LONGLORA": "LORA", "ADALORA": "ADALORA"}
"""`swift_type` -> `peft_type`."""
OWN_PARTS = r"lora_(?:A|B|E|embedding_A|embedding_B|magnitude_vector)|modules_to_save"


def holds_layers(folder: Path) -> bool:
    """Whether `folder` holds the new layers of LLaMA-Pro alone, without those of the base."""
    return adapter_kind(folder) == "llamapro"


def save_layers(
    model: PreTrainedModel, folder: Path, state_dict: Mapping[str, Tensor] | None = None, *, safetensors: bool = True
) -> None:
    """Write the trained layers of LLaMA-Pro alone."""
    layers = llamapro.decoder_layers(model)
    new = [number for number, layer in enumerate(layers) if next(layer.parameters()).requires_grad]
    inside = folder / FOLDER
    inside.mkdir(exist_ok=True)
    tensors = llamapro.own_tensors(model, new, model.state_dict() if state_dict is None else state_dict)
    write_tensors(tensors, inside, safetensors=safetensors)
    fields = {
        "swift_type": "LLAMAPRO",
        "base_model_name_or_path": model.name_or_path or None,
        "num_new_blocks": len(new),
        "num_groups": len(new),
        "model_type": model.config.model_type,
    }
    write_json(inside / CONFIG, dict(sorted(fields.items())))


def load_layers(model: PreTrainedModel, folder: Path, *, trainable: bool = False) -> PreTrainedModel:
    """Deepen `model` by the layers in `folder`, which need not be as many as its configuration says in 2.5's.

    Raises SwiftError when they do not fit.
    """
    inside = adapter_folder(folder)
    assert inside is not None
    numbers = llamapro.put_in(model, read_tensors(inside))
    llamapro.train_only(model, numbers if trainable else [])
    if not trainable:
        model.eval()
    return model


def is_swift(fields: Mapping[str, Any]) -> bool:
    """Whether an adapter's configuration is of this kind."""
    return fields.get("swift_type") is not None


def fields_of_peft(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of PEFT in the words of 2.5."""
    extra = {"model_key_mapping": None, "lora_dtype": None, "lorap_lr_ratio": None, "lorap_emb_lr": EMBEDDING_LR}
    return {**fields, **extra, "swift_type": str(fields["peft_type"].value), "peft_type": None}


def fields_for_peft(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of 2.5 in PEFT's words. Raises SwiftError for a method that PEFT has not."""
    import peft

    kind = PEFT_TYPES.get(str(fields["swift_type"]).upper())
    if kind is None:
        raise SwiftError(f"an adapter of the kind {fields['swift_type']} cannot be read as one of PEFT's")
    if fields.get("use_qa_lora") or fields.get("use_merged_linear"):
        raise SwiftError("this adapter stands on merged or quantized layers in a way that only 2.5 had")
    config = {"LORA": peft.LoraConfig, "ADALORA": peft.AdaLoraConfig}[kind]
    known = inspect.signature(config).parameters
    # What 2.5 leaves empty, PEFT has defaults for.
    kept = {name: value for name, value in fields.items() if name in known and value is not None}
    return {**kept, "peft_type": kind, "task_type": "CAUSAL_LM"}


def tensors_of_peft(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """PEFT's names of an adapter's tensors in the way of 2.5."""
    own = re.compile(rf"\.({OWN_PARTS})(\.|$)")
    return {own.sub(rf".\1.{FOLDER}\2", name.removeprefix(PREFIX)): tensor for name, tensor in tensors.items()}


def tensors_for_peft(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names of 2.5 in PEFT's way."""
    own = re.compile(rf"\.({OWN_PARTS})\.{FOLDER}(\.|$)")
    return {PREFIX + own.sub(r".\1\2", name).removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
