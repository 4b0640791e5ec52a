"""What an adapter is on a model's layers: which kinds may share a batch, and which only call the layer below them."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from swift.engines.packed_linear import pack_again, unpack
from swift.engines.weight_sharing import share_weights
from swift.tuners import initial_factors
from swift.tuners.adapter_files import Adapter
from swift.tuners.adapter_loading import base_names, fit_vocabulary, put_on, refused

TAKE_NAMES = frozenset({"Linear", "Embedding", "Linear8bitLt", "Linear4bit", "HqqLoraLinear"})
"""PEFT's LoRA layers that run several adapters in one batch, each on its own rows."""
LEAVE_THE_BASE = frozenset({"True", "False", "gaussian", "eva", "orthogonal", "mica", "lora_ga"})
"""Starting weights that take nothing out of the base when PEFT makes the layers again."""


def share_a_batch(tuned: peft.PeftModel, name: str) -> bool:
    """Whether every layer of the adapter `name` can run beside other adapters and none, in one batch."""
    for module in tuned.modules():
        if isinstance(module, AuxiliaryTrainingWrapper):
            return False
        if isinstance(module, BaseTunerLayer) and not _is_plain_lora(module):
            return False
    return True


def put_beside(base: PreTrainedModel, adapter: Adapter, name: str, shared: peft.PeftModel | None) -> Any:
    """The LoRA `name` on `shared`, or on a new model over the base's weights; None when it has to be alone on one."""
    if not _leaves_the_base(base, adapter):
        return None
    alone = put_on(share_weights(base), adapter, name=name)
    if not share_a_batch(alone, name):
        return None
    return alone if shared is None else put_on(shared, adapter, name=name)


def put_alone(base: PreTrainedModel, adapter: Adapter) -> peft.PeftModel:
    """The adapter on a model of its own over the base's weights, whatever its kind. Raises SwiftError for a misfit."""
    own = share_weights(base)
    text = own.config.get_text_config()  # the base's too
    rows = text.vocab_size
    names = set(base_names(adapter).values())
    ends = _ends(base)
    everything = adapter.config.peft_type != peft.PeftType.LORA

    def written(path: str) -> bool:
        at_an_end = path in ends and any(name.rpartition(".")[0] in ends for name in names)
        return everything or at_an_end or any(name.startswith(f"{path}.") for name in names)

    plain = unpack(own, written)
    _tie_again(own)
    for name in _written(own, adapter):
        parameter = own.get_parameter(name)
        parameter.data = parameter.data.clone()
    try:
        fit_vocabulary(own, adapter)
        tuned = put_on(own, adapter)
    finally:
        text.vocab_size = rows
    pack_again(tuned, plain, lambda parent, _: not isinstance(parent, BaseTunerLayer) or _is_plain_lora(parent))
    return tuned


def without_unchanged_ends(base: PreTrainedModel, adapter: Adapter) -> Adapter:
    """The adapter without the embeddings and the head of its base, which PEFT often saves beside what was trained."""
    tensors = dict(adapter.tensors)
    whole = adapter.config.to_dict().get("modules_to_save") or ()
    ends = {
        f"{path}.weight": path for path in _ends(base) if path.rpartition(".")[2] not in whole and path not in whole
    }
    for key, name in base_names(adapter).items():
        if name in ends:
            end: Any = base.get_submodule(ends[name])
            weight = end.weight
            if weight.shape == tensors[key].shape and torch.equal(weight, tensors[key].to(weight)):
                del tensors[key]
    return replace(adapter, tensors=tensors)


def beside_untouched_base(base: PreTrainedModel, adapter: Adapter) -> Adapter:
    """PiSSA and OLoRA as a LoRA of twice the rank that leaves the base as it is, so that others may share it.

    They train on W - s B0 A0, and s B A + W - s B0 A0 = W + s [B, -B0] [A; A0]. Others are returned as they are.
    """
    config = adapter.config
    if not isinstance(config, peft.LoraConfig) or not initial_factors.takes_from_base(config):
        return adapter
    factors = adapter.factors or _factors(base, adapter)
    widened = copy.deepcopy(config)
    growth = 2 if not config.use_rslora else math.sqrt(2)
    widened.init_lora_weights = True
    widened.r *= 2
    widened.lora_alpha *= growth  # type: ignore[assignment]  # PEFT divides it, whole or not
    widened.rank_pattern = {name: 2 * rank for name, rank in (config.rank_pattern or {}).items()}
    widened.alpha_pattern = {name: growth * alpha for name, alpha in (config.alpha_pattern or {}).items()}
    return replace(adapter, config=widened, tensors=_joined(adapter.tensors, factors), factors=None)


def _joined(tensors: Mapping[str, Tensor], factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    joined = dict(tensors)
    for key, tensor in tensors.items():
        for factor, dim, sign in (("A", 0, 1), ("B", 1, -1)):
            end = f".lora_{factor}.weight"
            if key.endswith(end):
                start = factors[f"{key.removesuffix(end)}.{factor}"].to(tensor)
                joined[key] = torch.cat([tensor, sign * start], dim=dim)
    return joined


def _factors(base: PreTrainedModel, adapter: Adapter) -> dict[str, Tensor]:
    """The starting factors of an adapter that PEFT wrote: made again from the base, as PEFT does."""
    own = share_weights(base)
    names = base_names(adapter).values()
    unpack(own, lambda path: any(name.startswith(f"{path}.") for name in names))
    for path, parameter in own.named_parameters():
        if any(name.startswith(path.removesuffix("weight")) for name in names):
            parameter.data = parameter.data.clone()  # OLoRA writes in place
    with refused(adapter):
        return initial_factors.make(own, adapter.config)


def _leaves_the_base(base: PreTrainedModel, adapter: Adapter) -> bool:
    config = adapter.config
    return (
        config.peft_type == peft.PeftType.LORA
        and str(config.to_dict()["init_lora_weights"]) in LEAVE_THE_BASE
        and not config.to_dict().get("target_parameters")  # a packed layer has no parameter to be found
        and not _written(base, adapter)
    )


def _written(model: PreTrainedModel, adapter: Adapter) -> list[str]:
    """The model's own parameters that the adapter's file holds: biases, and what modules_to_save copies."""
    own = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    own |= {f"{path}.weight" for path in _ends(model)}
    return [name for name in base_names(adapter).values() if name in own]


def _is_plain_lora(layer: nn.Module) -> bool:
    return isinstance(layer, LoraLayer) and type(layer).__name__ in TAKE_NAMES and not layer.lora_variant


def _ends(model: PreTrainedModel) -> set[str]:
    """Paths of the embeddings and the head."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return {path for path, module in model.named_modules() if any(module is end for end in ends)}


def _tie_again(model: PreTrainedModel) -> None:
    """A head that was packed has a copy of the embeddings; unpacked, it is tied to them again."""
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not model.config.tie_word_embeddings or type(head) is not nn.Linear:
        return
    if isinstance(inputs, nn.Embedding) and torch.equal(inputs.weight, head.weight):
        head.weight = inputs.weight
