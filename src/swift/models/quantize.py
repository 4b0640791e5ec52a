"""Carries out a QuantPlan: what transformers is told, HQQ's layers, and bitsandbytes as it has to be on a CPU.

docs/decisions/quantized-base.md says why it is done this way and what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, EetqConfig, PretrainedConfig, PreTrainedModel

from swift.core.did_you_mean import suggestion
from swift.core.errors import SwiftError
from swift.core.log import log
from swift.core.optional_imports import installed
from swift.core.probe import probe
from swift.plan.quantization import GROUP_SIZE, QuantPlan, check_stored, stored_quant

TORCH_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def transformers_config(plan: QuantPlan | None, whole: Sequence[str] = ()) -> BitsAndBytesConfig | EetqConfig | None:
    """What `from_pretrained` is told; None where the weights are loaded as they are, or HQQ takes them afterwards.

    `whole` are the paths of modules that stay as they are, beside the head.
    """
    if plan is None or plan.method == "hqq":
        return None
    left_out = [*whole, "lm_head"] if whole else None  # None: the head alone
    if plan.method == "eetq":
        return EetqConfig("int8", modules_to_not_convert=left_out)
    if plan.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=left_out)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=TORCH_DTYPES[plan.compute_dtype],
        bnb_4bit_quant_type=plan.quant_type,
        bnb_4bit_use_double_quant=plan.double_quant,
        bnb_4bit_quant_storage=plan.storage,
        llm_int8_skip_modules=left_out,
    )


def check_folder_allows(plan: QuantPlan | None, config: PretrainedConfig, folder: Path) -> None:
    """Raise SwiftError for quantized weights that cannot be read here, or that are to be quantized once more.

    The plan knows that already for local folders and models of the catalog; of others the download tells.
    """
    stored = stored_quant(config.to_dict())
    if stored is None:
        return
    if plan is not None:
        raise SwiftError(
            f"{folder} is quantized already ({stored})",
            where="--quantization_bit",
            next="leave --quantization_bit out",
        )
    check_stored(stored, str(folder), probe())


def finish(model: PreTrainedModel, plan: QuantPlan | None, dtype: torch.dtype, whole: Sequence[str] = ()) -> None:
    """What is left to do when the weights are in memory; `whole` are the paths of modules that stay as they are."""
    if plan is not None and plan.method == "hqq":
        _swap_for_hqq(model, plan, dtype, whole)
    if installed("bitsandbytes") and stored_quant(model.config.to_dict()):
        _steady_on_cpu(model)


def parameter_count(model: nn.Module) -> int:
    """Numbers in the weights, where several of them may be packed into one."""
    packed: dict[int, int] = {}
    kinds = _packed_kinds()
    for layer in model.modules():
        if isinstance(layer, kinds):
            linear: Any = layer
            packed[id(next(linear.parameters(recurse=False)))] = linear.in_features * linear.out_features
    return sum(packed.get(id(p), p.numel()) for p in model.parameters())


def _packed_kinds() -> tuple[type[nn.Module], ...]:
    """The classes of layers that keep several weights in one number."""
    kinds: tuple[type[nn.Module], ...] = ()
    if installed("hqq"):
        from hqq.core.quantize import HQQLinear  # pyright: ignore[reportMissingImports]  # comes as an extra

        kinds += (HQQLinear,)
    if installed("bitsandbytes"):
        from bitsandbytes.nn.modules import Linear4bit

        kinds += (Linear4bit,)
    return kinds


def _steady_on_cpu(model: nn.Module) -> None:
    """Make bitsandbytes compute the same on a CPU whether it trains or evaluates, and whatever else is in the batch.

    4 bit: on CPUs with AVX512-BF16 an evaluation repacks the weights for a kernel without gradient; training then goes
    on with zeros, and DoRA reads the repacked weights for the plain ones. 8 bit: an evaluation quantizes activations
    too, leaving out the columns where any row of the batch is large.
    """
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt

    from swift.models.bnb_int8 import WeightOnly8bit

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Linear4bit) and child.weight.device.type == "cpu":
                child.support_avx512bf16_for_cpu = False
            elif type(child) is Linear8bitLt and child.weight.device.type == "cpu":
                setattr(parent, name, WeightOnly8bit(child))


@torch.no_grad()
def _swap_for_hqq(model: PreTrainedModel, plan: QuantPlan, dtype: torch.dtype, whole: Sequence[str]) -> None:
    """Put HQQ's layers in the place of the linear layers, the head left out; transformers does not do it any more."""
    from hqq.core.quantize import HQQLinear, hqq_base_quant_config  # pyright: ignore[reportMissingImports]  # comes as an extra

    model.requires_grad_(False)  # HQQ copies biases into plain tensors, which would ask for gradients nobody uses
    head = model.get_output_embeddings()
    left_out = tuple(f"{path}." for path in whole)
    layers = {
        path: m
        for path, m in model.named_modules()
        if type(m) is nn.Linear and m is not head and not path.startswith(left_out)
    }
    chosen = _settings_of(plan, list(layers))
    log.info("quantizing %d of %d linear layers with HQQ", len(chosen), len(layers))
    for path, settings in chosen.items():
        layer, size = layers[path], settings["group_size"]
        if size is not None and layer.weight.numel() % size:
            raise SwiftError(
                f"HQQ cannot quantize {path}: its {layer.out_features} x {layer.in_features} weights do not make "
                f"groups of {size}",
                where="--quant_method hqq",
                next="name the other layers in --hqq_dynamic_config_path, or a group_size that divides",
            )
        swapped = HQQLinear(
            layer, hqq_base_quant_config(**settings), compute_dtype=dtype, device=str(layer.weight.device)
        )
        swapped.train(layer.training)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, swapped)


def _settings_of(plan: QuantPlan, paths: list[str]) -> dict[str, dict[str, Any]]:
    """Path -> settings of each layer to quantize. Raises SwiftError for a name in the plan that no path ends with."""
    if not plan.layers:
        return {path: {"nbits": plan.bits, "group_size": GROUP_SIZE, "axis": plan.axis} for path in paths}
    chosen: dict[str, dict[str, Any]] = {}
    for name, settings in plan.layers.items():
        matches = [path for path in paths if path == name or path.endswith(f".{name}")]
        if not matches:
            ends = {".".join(path.split(".")[-2:]) for path in paths}
            raise SwiftError(
                f"no linear layer is called {name}",
                where="--hqq_dynamic_config_path",
                next=suggestion(name, ends) or f"layers are called {', '.join(paths[:3])}",
            )
        chosen.update({path: dict(settings) for path in matches})
    return chosen
