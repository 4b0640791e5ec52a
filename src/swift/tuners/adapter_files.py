"""Adapters as their folders have them, PEFT's and those of 2.5 alike, read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from swift.core.errors import SwiftError
from swift.params.checkpoint_args import adapter_folder
from swift.tuners import swift_layout
from swift.tuners.tensor_files import CONFIG, read_fields, read_tensors

if TYPE_CHECKING:
    from peft import PeftConfig


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
    from swift.tuners import initial_factors

    inside = adapter_folder(folder)
    if inside is None:
        raise SwiftError(f"{folder} holds no adapter", next=f"give a folder with {CONFIG}")
    fields, tensors = read_fields(inside), read_tensors(inside)
    if swift_layout.is_swift(fields):
        fields, tensors = swift_layout.fields_for_peft(fields), swift_layout.tensors_for_peft(tensors)
    config = _peft_config(fields, inside / CONFIG)
    return Adapter(folder=folder, config=config, tensors=_own_tensors(tensors), factors=initial_factors.read(folder))


def _peft_config(fields: Mapping[str, Any], path: Path) -> PeftConfig:
    """PEFT's own reading, but for LoftQ: it asks for a package there that only its own way to start needs."""
    import peft

    from swift.tuners import loftq
    from swift.tuners.peft_tuners import known_warnings

    rounded = fields.get("init_lora_weights") == "loftq"
    known = {**fields, "init_lora_weights": True, "loftq_config": {}} if rounded else dict(fields)
    try:
        with known_warnings():
            config = peft.PeftConfig.from_peft_type(**known)
    except (KeyError, TypeError, ValueError) as error:
        raise SwiftError(
            f"{path} is not a configuration that PEFT {peft.__version__} can read",
            why=str(error),
            next="pip install -U peft, or copy the adapter again",
        ) from error
    if rounded:
        loftq.mark(config)
    return config


def adapter_tensors(
    model: Any, state_dict: Mapping[str, Tensor] | None = None, *, name: str = "default"
) -> dict[str, Tensor]:
    """What PEFT saves of the adapter `name`, without the embeddings of the base."""
    from peft import get_peft_model_state_dict

    tensors = model.state_dict() if state_dict is None else dict(state_dict)
    return get_peft_model_state_dict(model, state_dict=tensors, adapter_name=name, save_embedding_layers=False)


def _own_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what PEFT writes twice of modules saved whole where it saves the embeddings too.

    And without BOFT's permutations, which follow from the shapes and which PEFT wrote as well until 0.13.
    """
    own = ".modules_to_save."
    renamed = {key.replace(own, "."): tensor for key, tensor in tensors.items() if own in key}
    plain = {key: tensor for key, tensor in tensors.items() if own not in key and ".original_module." not in key}
    return {key: tensor for key, tensor in {**plain, **renamed}.items() if not key.endswith(".boft_P")}
