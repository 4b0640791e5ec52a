"""The sizes of a run's model, measured on the model itself: it has shapes here, and no numbers.

The forward pass runs on the meta device, and what autograd keeps for the backward pass is added up: the very tensors
of this architecture, this tuner and this batch, in well under a second and without a byte of weights.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from swift import tuners
from swift.models.load import TORCH_DTYPES, auto_class, full_precision, load_config
from swift.plan.model import ModelPlan
from swift.plan.quantization import GROUP_SIZE, QuantPlan
from swift.plan.sft import SftPlan
from swift.plan.train import TrainPlan
from swift.plan.tuner import TunerPlan
from swift.training.callbacks.lisa import layers_in_turn
from swift.training.frozen_layers import packing_bytes
from swift.training.model_sizes import ModelSizes
from swift.training.optimizers.build import projected_names, projection
from swift.training.varlen_attention import NAME


def measured(plan: SftPlan, source: Path, tokens: int, steps: int) -> ModelSizes:
    """Sizes of the model in `source` with the tuner of a run of so many steps, and of a pass over `tokens`."""
    model = meta_model(plan, source, steps)
    if plan.train.lisa is not None:  # the layers at rest have neither gradient nor state
        layers = layers_in_turn(tuners.base_model(model), plan.train.lisa)
        resting = layers[plan.train.lisa.lisa_activated_layers :]
        resting.requires_grad_(False)
    trainable = [p for p in model.parameters() if p.requires_grad]
    gradients = sum(p.nbytes for p in trainable)
    quant = plan.model.quant
    return ModelSizes(
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in trainable),
        weights=_whole(model),
        gradients=gradients,
        projected=gradients - saved_by_projecting(model, plan.train),
        quantized=0 if quant is None else saved_by_quantizing(model, quant),
        packed=packing_bytes(model),
        activations=activation_bytes(model, tokens, recompute=bool(plan.train.recompute)),
    )


def measured_weights(plan: ModelPlan, source: Path) -> int:
    """Bytes of the weights of a model that only answers."""
    config = load_config(plan, source)
    with torch.device("meta"):
        model = auto_class(config).from_config(config, dtype=TORCH_DTYPES[plan.dtype])
    whole = _whole(model)
    return whole if plan.quant is None else whole - saved_by_quantizing(model.requires_grad_(False), plan.quant)


def _whole(model: nn.Module) -> int:
    return sum(p.nbytes for p in {id(p): p for p in model.parameters()}.values())


def meta_model(plan: SftPlan, source: Path, steps: int) -> nn.Module:
    """The model with the tuner of a run of so many steps, without storage."""
    config = load_config(plan.model, source)
    with torch.device("meta"):
        base = auto_class(config).from_config(
            config,
            dtype=TORCH_DTYPES[plan.model.dtype],
            attn_implementation=None if plan.model.attn == "sdpa" else plan.model.attn,  # None: SDPA if the model can
        )
        return tuners.attach(base, _plain(plan), total_steps=steps)


def activation_bytes(model: Any, tokens: int, *, recompute: bool) -> int:
    """What autograd keeps of one forward pass over `tokens`, and what a layer needs on top when it goes backward."""
    base: PreTrainedModel = model if isinstance(model, PreTrainedModel) else model.get_base_model()
    if base.config._attn_implementation == "sdpa":
        base.set_attn_implementation(NAME)
    model.train()
    config = base.config.get_text_config()
    everything = _kept_by_autograd(model, tokens)
    layer = everything // max(config.num_hidden_layers, 1)
    if not recompute:
        return everything + layer
    base.activation_checkpointing_enable({"use_reentrant": False})
    return _kept_by_autograd(model, tokens) + 2 * layer


def saved_by_projecting(model: nn.Module, plan: TrainPlan) -> int:
    """Bytes that each number kept of a gradient takes less in GaLore's spaces."""
    if plan.galore is None:
        return 0
    spaces, parameters = projection(plan.galore), dict(model.named_parameters())
    matrices = [parameters[name] for name in projected_names(model, plan.galore)]
    return sum(p.nbytes - math.prod(spaces.low_shape(p.shape)) * p.element_size() for p in matrices)


def _kept_by_autograd(model: nn.Module, tokens: int) -> int:
    """Bytes of distinct storages that a forward pass over `tokens` saves, parameters left out."""
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    seen: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in own:
            seen.setdefault(key, tensor)
        return tensor

    ids = torch.zeros((1, tokens), dtype=torch.long, device="meta")
    base: Any = model if isinstance(model, PreTrainedModel) else model.get_base_model()  # type: ignore[operator]
    ours = base.config._attn_implementation == NAME
    # A finished mask where none is used.
    given = {"attention_mask": torch.zeros((1, 1, 1, 1), device="meta"), "position_ids": ids} if ours else {}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), _WithoutNumbers():
        output = model(input_ids=ids, use_cache=False, sequence_lengths=(tokens,), logits_to_keep=1, **given)
    del output
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


class _WithoutNumbers(TorchFunctionMode):
    """Answers for what models ask of tensors without numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            return _attention(*args, **(kwargs or {}))
        if func.__name__ == "_grouped_mm":  # in bf16 only; the product with one expert has and keeps the same sizes
            return args[0] @ args[1][0]
        if func is Tensor.nonzero and args[0].is_meta:  # which experts are asked: as if one were
            return torch.zeros((1, args[0].ndim), dtype=torch.long)
        if func is torch.where and len(args) == 1 and args[0].is_meta:  # for which tokens: as if for all
            return (torch.zeros(args[0].numel(), dtype=torch.long, device="meta"),) * args[0].ndim
        if func is Tensor.__bool__ and args[0].is_meta:  # whether all tokens are of one sequence
            return True
        if func is Tensor.__contains__ and args[0].is_meta:  # whether there is padding
            return False
        return func(*args, **(kwargs or {}))


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """(…, heads, T, dim of `value`). What a kernel keeps are the states, the result and a sum for each token, no square
    of the length; CPUs have none for values of another width than the keys."""
    if query.shape[-1] != value.shape[-1]:
        how: dict[str, Any] = {"attn_mask": attn_mask, "is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
        return scaled_dot_product_attention(query, key, value, dropout_p=dropout_p, **how)
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
    )[0]


def saved_by_quantizing(model: nn.Module, quant: QuantPlan) -> int:
    """Bytes that the base's linear layers, the head left out, lose by it. HQQ's layers by name count as all alike."""
    base: Any = model if isinstance(model, PreTrainedModel) else model.get_base_model()  # type: ignore[operator]
    head, saved = base.get_output_embeddings(), 0.0
    whole = tuple(f"{path}." for path in full_precision(base.config))
    for path, layer in base.named_modules():
        if type(layer) is nn.Linear and layer is not head and not layer.weight.requires_grad:
            if path.startswith(whole):
                continue
            weight = layer.weight
            saved += weight.nbytes - bytes_per_weight(quant, weight.element_size()) * weight.numel()
    return int(saved)


def bytes_per_weight(quant: QuantPlan, size: int) -> float:
    """What a quantized weight takes with its share of the scales; `size` is that of a number in the plan's dtype."""
    if quant.method == "hqq":
        packed = 4 / 10 if quant.bits == 3 else quant.bits / 8  # ten weights of 3 bits in an int32
        return packed + 2 * size / GROUP_SIZE
    if quant.bits == 8:
        return 1.0
    return 0.5 + ((1 + 4 / 256) if quant.double_quant else 4) / 64


def _plain(plan: SftPlan) -> TunerPlan:
    """The tuner with the initialisation that needs no numbers, and the dtype that the layers below would give it."""
    settings = dict(plan.tuner.settings)
    if "init_lora_weights" in settings:
        settings["init_lora_weights"] = True
    exact = plan.model.quant is not None or plan.model.stored_quant is not None or plan.model.dtype == "fp16"
    return replace(plan.tuner, settings=settings, dtype=plan.tuner.dtype or ("fp32" if exact else plan.model.dtype))
