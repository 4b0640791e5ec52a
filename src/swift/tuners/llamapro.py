"""LLaMA-Pro (Wu et al., arXiv 2401.02415): copies of some layers are put above them, and only the copies are trained.

The layers are cut into groups of equal size, and above each group stand copies of its topmost layers. What a copy adds
to the residual stream goes through the output projections of its attention and its MLP, which start at zero: the
deeper model begins as the one it was made from, which is measured. It is an ordinary model with more layers.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from swift.core.errors import SwiftError
from swift.tuners.layers import OUTPUTS, decoder_layers, layer_list

NOT_OF_LAYERS = ("token_id", "architectures")
"""Ends of names of lists in a configuration that may happen to be as long as there are layers."""
FLAGS = "--llamapro_num_new_blocks, --llamapro_num_groups"


def placed(layers: int, new: int, groups: int | None) -> dict[int, int]:
    """Number of each new layer in the deeper model -> the number of its original in the model of so many `layers`.

    Raises SwiftError for numbers that do not divide each other.
    """
    groups = groups or new
    if new % groups or layers % groups or new > layers:
        raise SwiftError(
            f"{new} new layers in {groups} groups do not fit a model of {layers} layers",
            where=FLAGS,
            why="each group has as many layers of the model and gets as many new ones as any other, and not more",
            next=f"--llamapro_num_new_blocks {_nearest_divisor(layers, new)}",
        )
    size, copies = layers // groups, new // groups
    return {
        (group + 1) * size + group * copies + copy: (group + 1) * size - copies + copy
        for group in range(groups)
        for copy in range(copies)
    }


def deepen(model: PreTrainedModel, sources: Mapping[int, int]) -> None:
    """Put copies of layers into `model`, `sources` as of `placed`. Raises SwiftError when that changes answers."""
    _require_free_numbers(model, min(sources))
    meta = next(model.parameters()).is_meta
    before = None if meta else _logits(model)
    layers = decoder_layers(model)
    copies = {place: _copied(layers[source]) for place, source in sources.items()}
    for place in sorted(copies):
        _silence(copies[place])
        layers.insert(place, copies[place])
    for number, layer in enumerate(layers):
        for module in layer.modules():
            if "layer_idx" in vars(module):
                vars(module)["layer_idx"] = number
    _lengthen(model.config.get_text_config(), sources)
    if before is None:
        return
    if not torch.equal(_logits(model), before):
        raise _unfit(model, "its layers write into the residual stream through projections of other names")
    _check_rebuilt(model)


def train_only(model: PreTrainedModel, numbers: Sequence[int]) -> None:
    """Leave the layers of these numbers trainable, every parameter of them, and nothing else."""
    model.requires_grad_(False)
    layers = decoder_layers(model)
    for number in numbers:
        layers[number].requires_grad_(True)


def own_tensors(model: PreTrainedModel, numbers: Sequence[int], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a state dict those that belong to the layers of these numbers."""
    start = layer_list(model)
    own = tuple(f"{start}.{number}." for number in numbers)
    return {name: tensor for name, tensor in tensors.items() if name.startswith(own)}


def numbers_in(model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> list[int]:
    """Numbers of the layers, in the deeper model, that a file of new layers holds."""
    pattern = re.compile(re.escape(layer_list(model)) + r"\.(\d+)\.")
    return sorted({int(match[1]) for match in map(pattern.match, tensors) if match})


def put_in(model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> list[int]:
    """Deepen `model` by the new layers of a file. -> their numbers. Raises SwiftError when they do not fit."""
    numbers = numbers_in(model, tensors)
    # A new layer is the copy of the one below it; the copies of a group lie together above their originals.
    sources: dict[int, int] = {}
    for place in numbers:
        run = [n for n in numbers if n <= place and set(range(n, place + 1)) <= set(numbers)]
        below = sum(1 for number in numbers if number < run[0])
        length = next(k for k in range(1, len(numbers) + 2) if run[0] + k not in numbers)
        sources[place] = run[0] - below - length + (place - run[0])
    if not sources or max(sources.values()) >= len(decoder_layers(model)) or min(sources.values()) < 0:
        raise _misfit("its new layers have no place in this model")
    deepen(model, sources)
    wanted = own_tensors(model, numbers, model.state_dict())
    wrong = sorted(wanted.keys() ^ tensors.keys()) or [n for n in wanted if wanted[n].shape != tensors[n].shape]
    if wrong:
        raise _misfit(f"{wrong[0]} is missing in one of them or has another shape")
    model.load_state_dict(dict(tensors), strict=False)
    return numbers


def _require_free_numbers(model: PreTrainedModel, lowest: int) -> None:
    """Images may come in at layers of certain numbers, which a new layer with a number of `lowest` or more would take.

    Texts, by which answers are compared, do not show that.
    """
    config = model.config.to_dict()
    if (config.get("text_config") or {}).get("cross_attention_layers"):
        raise _unfit(model, "the layers that look at its images are named by their numbers")
    reached = len((config.get("vision_config") or {}).get("deepstack_visual_indexes") or ())
    if lowest < reached:
        raise _unfit(
            model,
            f"what it sees is added to its first {reached} layers, and a new one would be number {lowest + 1}",
            f"use a smaller --llamapro_num_groups, so that {reached} layers or more stand below the first new one",
        )


def _copied(layer: nn.Module) -> nn.Module:
    """A copy that reads the model's own configuration, by which all layers are told how to attend."""
    held = [value for module in layer.modules() for value in vars(module).values()]
    return copy.deepcopy(layer, {id(value): value for value in held if isinstance(value, PreTrainedConfig)})


def _silence(layer: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if OUTPUTS & set(name.split(".")):
                parameter.zero_()


def _lengthen(config: Any, sources: Mapping[int, int]) -> None:
    """Count the new layers in the configuration, and say of each what is said of its original."""
    before = config.num_hidden_layers
    original = [number for number in range(before + len(sources)) if number not in sources]
    for name, value in list(vars(config).items()):
        if name == "mlp_only_layers" and isinstance(value, list):
            moved = [new for old, new in enumerate(original) if old in value]
            setattr(config, name, sorted(moved + [new for new, old in sources.items() if old in value]))
        elif isinstance(value, list) and len(value) == before and not name.endswith(NOT_OF_LAYERS):
            longer = dict(zip(original, value, strict=True)) | {new: value[old] for new, old in sources.items()}
            setattr(config, name, [longer[number] for number in range(len(longer))])
    config.num_hidden_layers = before + len(sources)


def _check_rebuilt(model: PreTrainedModel) -> None:
    """The saved configuration has to describe the deeper model: build it again without storage."""
    with torch.device("meta"):
        again = type(model)(copy.deepcopy(model.config))
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if shapes != {name: tensor.shape for name, tensor in again.state_dict().items()}:
        raise _unfit(model, "its configuration gives every layer a place of its own")


@torch.no_grad()
def _logits(model: PreTrainedModel) -> Tensor:
    was_training = model.training
    model.eval()
    ids = torch.arange(1, 8, device=model.device)[None]
    logits = model(input_ids=ids, use_cache=False).logits
    model.train(was_training)
    return logits


def _nearest_divisor(layers: int, new: int) -> int:
    return max(number for number in range(1, layers + 1) if layers % number == 0 and number <= max(new, 1))


def _unfit(model: PreTrainedModel, why: str, next: str = "use --sft_type lora") -> SwiftError:
    return SwiftError(
        f"--sft_type llamapro cannot put layers into {type(model).__name__}",
        where="--sft_type",
        why=why,
        next=next,
    )


def _misfit(why: str) -> SwiftError:
    return SwiftError("these new layers do not fit the base model", why=why, next="use the model they were trained on")
