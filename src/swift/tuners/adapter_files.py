"""Adapters and tuned models on disk: written so that PEFT reads them too, read back strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

WEIGHTS = "adapter_model.safetensors"


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
    tensors = _adapter_tensors(model, state_dict)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS, {"format": "pt"})
    initial_factors.write(model, folder)
    _write_config(model, folder)
    base = model.get_base_model()
    if isinstance(base, PreTrainedModel) and base.generation_config is not None:
        base.generation_config.save_pretrained(folder)
    _write_card(card, folder)


def load(model: PreTrainedModel, folder: Path, *, trainable: bool = False) -> nn.Module:
    """`model` with the adapter in `folder` on top, every tensor of the file used and none invented.

    `model` is the base the adapter was trained on. Raises SwiftError when they do not fit.
    """
    import peft

    from swift.tuners import initial_factors
    from swift.tuners.peft_tuners import known_warnings

    tensors = read_adapter(folder)
    config = peft.PeftConfig.from_pretrained(str(folder))
    config.inference_mode = not trainable
    config.base_model_name_or_path = model.name_or_path
    _fit_vocabulary(model, tensors)
    factors = initial_factors.read(folder)
    with known_warnings():
        tuned = _wrap(model, config, plain=factors is not None)
    if factors is not None:
        initial_factors.take_out(tuned, factors)
    _check_fit(tuned, tensors, folder)
    _set_dtypes(tuned, tensors, exact=trainable)
    _fill(tuned, tensors)
    if not trainable:
        tuned.eval()
    return tuned


def merge(model: nn.Module) -> PreTrainedModel:
    """The base model with the adapter folded into its weights, in the dtype the model is in.

    Embeddings tied to the head are untied first when the adapter changes one of them: the adapter acts on one side
    only, so the two weights differ after merging. Raises SwiftError when a merged weight is not finite.
    """
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        raise TypeError(f"{type(model).__name__} carries no adapter")
    _untie(model)
    try:
        merged = model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise SwiftError("the adapter cannot be merged", why=str(error)) from error
    assert isinstance(merged, PreTrainedModel)
    return merged


def read_adapter(folder: Path) -> dict[str, Tensor]:
    """The adapter's tensors on the CPU. Raises SwiftError when the file is missing or damaged."""
    path = folder / WEIGHTS
    if not path.is_file():
        if (folder / "adapter_model.bin").is_file():
            return torch.load(folder / "adapter_model.bin", map_location="cpu", weights_only=True)
        raise SwiftError(f"{folder} has no {WEIGHTS}", next="give a checkpoint folder that training wrote")
    read_header(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise SwiftError(f"{path} cannot be read", why=str(error), next="use another checkpoint") from error


def _adapter_tensors(model: Any, state_dict: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(
        model, state_dict=None if state_dict is None else dict(state_dict), save_embedding_layers=False
    )


def _wrap(model: PreTrainedModel, config: Any, *, plain: bool) -> Any:
    """Wrap the base; `plain` keeps a method that starts from the base's factors from factorising it again."""
    import peft

    if not plain:
        return peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    method = config.init_lora_weights
    config.init_lora_weights = False
    tuned = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    config.init_lora_weights = method
    return tuned


def _write_config(model: Any, folder: Path) -> None:
    """adapter_config.json as PEFT writes it, with sets in a fixed order."""
    config = model.peft_config[model.active_adapter]
    fields = {**config.to_dict(), "inference_mode": True}
    fields["base_model_name_or_path"] = model.get_base_model().name_or_path
    ordered = {name: sorted(value) if isinstance(value, set) else value for name, value in fields.items()}
    if isinstance(ordered.get("target_modules"), list):
        ordered["target_modules"] = sorted(ordered["target_modules"])
    _write_json(folder / "adapter_config.json", dict(sorted(ordered.items())))


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


def _fit_vocabulary(model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> None:
    """Resize the embeddings when the adapter was trained with added tokens: it then carries them whole."""
    embedding: Any = model.get_input_embeddings()
    rows = embedding.weight.shape[0]
    for name, tensor in tensors.items():
        whole = name.endswith(("embed_tokens.weight", "wte.weight", "embed_tokens.base_layer.weight"))
        if whole and tensor.shape[0] != rows:
            model.resize_token_embeddings(tensor.shape[0], mean_resizing=False)
            return


def _check_fit(tuned: Any, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Names and shapes of the file against those the adapter needs on this base."""
    expected = {name: tensor.shape for name, tensor in _adapter_tensors(tuned, None).items()}
    base = {name for name, _ in tuned.named_parameters()}
    missing = sorted(expected.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - expected.keys() - base)
    shapes = sorted(name for name in expected.keys() & tensors.keys() if expected[name] != tensors[name].shape)
    for names, what in ((missing, "lacks"), (unknown, "holds, and nothing uses,"), (shapes, "has another shape for")):
        if names:
            raise SwiftError(
                f"the adapter in {folder} does not fit the base model",
                why=f"its file {what} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else ""),
                next="use the base model it was trained on, or a whole checkpoint",
            )


def _set_dtypes(tuned: Any, tensors: Mapping[str, Tensor], *, exact: bool) -> None:
    """Give the adapter's parameters the file's precision (`exact`, to train on), or never less than it (to use)."""
    for name, parameter in tuned.named_parameters():
        stored = tensors.get(name.replace(".default", ""))
        if stored is not None:
            dtype = stored.dtype if exact else torch.promote_types(stored.dtype, parameter.dtype)
            parameter.data = parameter.data.to(dtype)


def _fill(tuned: Any, tensors: Mapping[str, Tensor]) -> None:
    from peft import set_peft_model_state_dict

    result = set_peft_model_state_dict(tuned, dict(tensors))
    if result.unexpected_keys:
        raise SwiftError("the adapter does not fit the base model", why=f"nothing uses {result.unexpected_keys[0]}")


def _untie(model: Any) -> None:
    """Give the head a weight of its own when the adapter sits on tied embeddings or on the head."""
    base = model.get_base_model()
    inputs, head = base.get_input_embeddings(), base.get_output_embeddings()
    if head is None or (isinstance(inputs, nn.Embedding) and isinstance(head, nn.Linear)):
        return
    source, target = _weight_owner(inputs), _weight_owner(head)
    if source.weight is not target.weight:
        return
    target.weight = nn.Parameter(target.weight.detach().clone(), requires_grad=False)
    base.config.tie_word_embeddings = False


def _weight_owner(module: nn.Module) -> Any:
    """The plain layer inside PEFT's wrappers."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    if isinstance(module, BaseTunerLayer):
        return module.get_base_layer()
    if isinstance(module, ModulesToSaveWrapper):
        return module.original_module
    return module
