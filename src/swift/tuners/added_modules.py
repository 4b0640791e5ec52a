"""Attaching, saving and loading the methods of our own that add modules: adapter and ReFT."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.params.checkpoint_args import adapter_folder, adapter_kind
from swift.tuners import bottleneck, interventions, pyreft_layout
from swift.tuners.added import Added, hang
from swift.tuners.layers import layer_list
from swift.tuners.tensor_files import CONFIG, read_fields, read_tensors, write_json, write_tensors

FOR_2_5 = ("dim", "hidden_pos", "method_name", "model_key_mapping", "model_type", "target_modules")
NOT_SETTINGS = ("swift_type", "base_model_name_or_path", *FOR_2_5)
"""What an adapter's configuration says beside the settings of its method."""


@dataclass(frozen=True)
class Method:
    """One way to add modules."""

    make: Callable[[int, Mapping[str, Any]], Added]
    """From the width of what it changes, and the settings."""
    places: Callable[[PreTrainedModel, Mapping[str, Any]], list[str]]
    """Paths of the modules whose output is changed."""
    folder: str
    """Where in a checkpoint its files lie, as in those of 2.5."""


METHODS = {
    "adapter": Method(bottleneck.Bottleneck, bottleneck.places, "default"),
    "reft": Method(interventions.make, interventions.places, "reft"),
}
"""By `--sft_type`."""


def attach(model: PreTrainedModel, kind: str, settings: Mapping[str, Any]) -> None:
    """Add the modules of a method to `model`, whose own parameters are frozen.

    They take the dtype of the module each hangs below, but never fp16, whose gradients cannot be unscaled.
    """
    method = METHODS[kind]
    model.requires_grad_(False)
    width = model.config.get_text_config().hidden_size
    for path in method.places(model, settings):
        host = model.get_submodule(path)
        beside = _weight_of(host, model)
        added = method.make(width, {**settings, "kind": kind}).to(device=beside.device)
        hang(host, added.to(torch.float32 if beside.dtype == torch.float16 else beside.dtype))


def added_to(model: nn.Module) -> dict[str, Added]:
    """The added modules of a model by the path of the module each hangs below; none for a model without."""
    return {path.rpartition(".")[0]: module for path, module in model.named_modules() if isinstance(module, Added)}


@contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """While it lasts, the model answers as if nothing had been added."""
    modules = added_to(model).values()
    for module in modules:
        module.switched_on = False
    try:
        yield
    finally:
        for module in modules:
            module.switched_on = True


def save(
    model: PreTrainedModel,
    folder: Path,
    tensors: Mapping[str, Tensor] | None = None,
    *,
    safetensors: bool = True,
    as_swift: bool = False,
) -> None:
    """Write the configuration and the weights of the added modules; `tensors` replaces the model's state dict.

    `as_swift` writes ReFT's weights once more, for 2.5; the rest of its layout is the only one.
    """
    added = added_to(model)
    settings = next(iter(added.values())).settings
    kind = settings["kind"]
    folder = folder / METHODS[kind].folder
    folder.mkdir(exist_ok=True)
    state = model.state_dict() if tensors is None else tensors
    own = tuple(f"{path}.{module.child}." for path, module in added.items())
    kept = {name: tensor for name, tensor in state.items() if name.startswith(own)}
    write_tensors(kept, folder, safetensors=safetensors)
    if kind == "reft" and as_swift:
        by_layer = {int(path.rpartition(".")[2]): _below(f"{path}.{m.child}.", kept) for path, m in added.items()}
        pyreft_layout.write(by_layer, next(iter(added)).rpartition(".")[0], settings["intervention_type"], folder)
    fields = {name: value for name, value in settings.items() if name != "kind"} | _in_words_of_2_5(model, added)
    write_json(folder / CONFIG, dict(sorted(fields.items())))


def _in_words_of_2_5(model: PreTrainedModel, added: Mapping[str, Added]) -> dict[str, Any]:
    """What 2.5 needs to know to put the modules where they are."""
    settings = next(iter(added.values())).settings
    fields = {"swift_type": settings["kind"].upper(), "base_model_name_or_path": model.name_or_path or None}
    if settings["kind"] == "reft":
        return {**fields, "model_type": None, "layer_key": next(iter(added)).rpartition(".")[0]}
    hosts = sorted({path.rpartition(".")[2] for path in added})
    width = model.config.get_text_config().hidden_size
    return {**fields, "dim": width, "hidden_pos": 0, "method_name": "forward", "target_modules": hosts}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def kind_of(folder: Path) -> str | None:
    """The `--sft_type` of the added modules that `folder` holds; None for any other folder."""
    kind = adapter_kind(folder)
    return kind if kind in METHODS else None


def load(model: PreTrainedModel, folder: Path, *, trainable: bool = False) -> PreTrainedModel:
    """Add what `save`, or the 2.5 release, wrote: every tensor of the file used and none invented.

    Raises SwiftError when the file and the model do not fit.
    """
    kind, inside = kind_of(folder), adapter_folder(folder)
    assert kind is not None and inside is not None
    method = METHODS[kind]
    model.requires_grad_(False)
    own = ((name, value) for name, value in read_fields(inside).items() if name not in NOT_SETTINGS)
    settings = {"args": {}, **{name: value for name, value in own if value is not None}, "kind": kind}
    by_place = _by_place(model, inside, kind, settings)
    width = model.config.get_text_config().hidden_size
    modules = dict(model.named_modules())
    for path, state in by_place.items():
        if path not in modules:
            raise _misfit(folder, f"the model has no {path}")
        added = method.make(width, settings)
        try:
            added.load_state_dict(state)
        except RuntimeError as error:
            raise _misfit(folder, str(error).splitlines()[-1].strip()) from error
        for name, parameter in added.named_parameters():
            parameter.data = parameter.data.to(state[name].dtype)
        hang(modules[path], added.to(_weight_of(modules[path], model).device))
    for path, added in added_to(model).items():
        added.requires_grad_(trainable)
        told = added.go_on() if trainable else None
        if told:
            log.warning("%s, %s: %s", folder, path, told)
    if not trainable:
        model.eval()
    return model


def _by_place(
    model: PreTrainedModel, folder: Path, kind: str, settings: Mapping[str, Any]
) -> dict[str, dict[str, Tensor]]:
    """Path of each module whose output is changed -> the tensors of what changes it."""
    if kind == "reft" and pyreft_layout.is_all(folder):
        start = layer_list(model, settings.get("layer_key"))
        return {f"{start}.{number}": tensors for number, tensors in pyreft_layout.read(folder).items()}
    by_place: dict[str, dict[str, Tensor]] = {}
    for name, tensor in read_tensors(folder).items():
        path, _, rest = name.partition(f".{kind}_default.")
        by_place.setdefault(path, {})[rest] = tensor
    return by_place


def _weight_of(host: nn.Module, model: PreTrainedModel) -> Tensor:
    """A parameter of `host`, or of the model where it has none."""
    return next(p for module in (host, model) for p in module.parameters() if p.is_floating_point())


def _misfit(folder: Path, why: str) -> SwiftError:
    return SwiftError(
        f"the adapter in {folder} does not fit the base model",
        why=why,
        next="use the base model it was trained on",
    )
