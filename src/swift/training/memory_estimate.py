"""How much memory and disk a run will take, from a model that has shapes but no numbers.

The forward pass runs on the meta device, and what autograd keeps for the backward pass is added up: the very tensors
of this architecture, this tuner and this batch, in well under a second and without a byte of weights.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from swift import models, tuners
from swift.core.log import log
from swift.models.integrity import weight_files
from swift.models.load import TORCH_DTYPES, load_config
from swift.plan.quantization import GROUP_SIZE, QuantPlan
from swift.plan.rlhf import ReferencePlan
from swift.plan.sft import SftPlan
from swift.plan.train import TrainPlan
from swift.plan.tuner import TunerPlan
from swift.training.callbacks.lisa import layers_in_turn
from swift.training.chunked_cross_entropy import CHUNK_BYTES
from swift.training.frozen_layers import packing_bytes
from swift.training.optimizers.build import projected_names, projection
from swift.training.passes import step_sizes
from swift.training.varlen_attention import NAME

PROCESS_BYTES = 620 * 2**20
"""Resident set of a training process on a CPU before it loads a model: the interpreter and its libraries."""
STATES = {"adamw": 2, "adam": 2, "ademamix": 3, "lion": 1, "sgd": 0, "rmsprop": 1, "adagrad": 1, "adafactor": 0}
"""Numbers an optimizer keeps for each trained one, by a part of its name."""
CHECKPOINT_EXTRA = 60 * 2**10
"""Bytes of the small files in a checkpoint: configurations, arguments, random state, log history, manifest."""
RUN_EXTRA = 420 * 2**10
"""Bytes of the images and the TensorBoard events of a run."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Sizes in bytes, counts in numbers."""

    parameters: int
    trainable: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    tokens: int
    """Tokens of the largest forward pass, for which the activations are."""
    mapped: int = 0
    """Bytes of the weights' files that stay in memory beside the quantized weights made of them, on a CPU."""
    loading: int = 0
    """Bytes that are in memory while HQQ's layers are made of the full weights."""
    reference: int = 0
    """Bytes of the reference's weights, where it is a model of its own."""
    reference_first: bool = False
    """Whether the reference has left the memory when training begins."""
    reward: int = 0
    """Bytes of the reward model's files."""

    @property
    def peak(self) -> int:
        """The most memory the process will hold."""
        training = self.gradients + self.optimizer + self.activations
        beside = max(training, self.reference) if self.reference_first else training + self.reference
        held = self.weights + self.mapped + self.reward + beside + 2 * CHUNK_BYTES
        return PROCESS_BYTES + max(held, self.loading)


@dataclass(frozen=True, kw_only=True)
class DiskEstimate:
    """What a run writes."""

    checkpoint: int
    """Bytes of one."""
    checkpoints: int
    """Checkpoints that are there when the run ends."""

    @property
    def total(self) -> int:
        """Bytes of the run's folder at the end."""
        return self.checkpoint * self.checkpoints + RUN_EXTRA


def estimate(plan: SftPlan, source: Path, tokens: int, *, steps: int, per_epoch: int) -> Estimate | None:
    """Sizes of the run, the largest forward pass of which has `tokens`, with the model's configuration in `source`.

    None for a model that does not compute without numbers.
    """
    try:
        return _estimate(plan, source, tokens, steps=steps, per_epoch=per_epoch)
    except (RuntimeError, TypeError, ValueError) as error:
        log.debug("no estimate of the memory: %s: %s", type(error).__name__, error)
        return None


def _estimate(plan: SftPlan, source: Path, tokens: int, *, steps: int, per_epoch: int) -> Estimate:
    model = meta_model(plan, source, steps)
    if plan.train.lisa is not None:  # the layers at rest have neither gradient nor state
        layers = layers_in_turn(tuners.base_model(model), plan.train.lisa)
        resting = layers[plan.train.lisa.lisa_activated_layers :]
        resting.requires_grad_(False)
    trainable = [p for p in model.parameters() if p.requires_grad]
    gradients = sum(p.nbytes for p in trainable)
    states = next((n for name, n in STATES.items() if name in plan.train.optim.optim), 2)
    optimizer = states * (gradients - saved_by_projecting(model, plan.train))
    weights = sum(p.nbytes for p in {id(p): p for p in model.parameters()}.values())
    stored = sum(path.stat().st_size for path in weight_files(source))
    quant, loading = plan.model.quant, 0
    if quant is not None:
        loading = weights + stored if quant.method == "hqq" else 0
        weights -= saved_by_quantizing(model, quant)
    elif plan.model.stored_quant is not None:
        weights = stored
    elif plan.train.pack_frozen:
        weights += packing_bytes(model)
    reference = plan.alignment.reference if plan.alignment else None
    return Estimate(
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in trainable),
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=activation_bytes(model, tokens, recompute=bool(plan.train.recompute)),
        tokens=tokens,
        mapped=stored if quant is not None and plan.train.device == "cpu" else 0,
        loading=loading,
        reference=reference_bytes(reference, weights),
        reference_first=reference is not None and reference.asked_first(steps, per_epoch),
        reward=reward_bytes(plan),
    )


def disk_estimate(
    plan: SftPlan, sizes: Estimate, tokenizer: PreTrainedTokenizerBase, *, steps: int, per_epoch: int
) -> DiskEstimate:
    """What the run will write."""
    written = sizes.weights if plan.tuner.sft_type in ("full", "llamapro") else sizes.gradients
    state = 0 if plan.train.group.save_only_model else sizes.optimizer
    return DiskEstimate(
        checkpoint=written + state + _tokenizer_bytes(tokenizer) + CHECKPOINT_EXTRA,
        checkpoints=_kept(plan.train, steps, per_epoch),
    )


def saved_by_projecting(model: nn.Module, plan: TrainPlan) -> int:
    """Bytes that each number kept of a gradient takes less in GaLore's spaces."""
    if plan.galore is None:
        return 0
    spaces, parameters = projection(plan.galore), dict(model.named_parameters())
    matrices = [parameters[name] for name in projected_names(model, plan.galore)]
    return sum(p.nbytes - math.prod(spaces.low_shape(p.shape)) * p.element_size() for p in matrices)


def meta_model(plan: SftPlan, source: Path, steps: int) -> nn.Module:
    """The model with the tuner of a run of so many steps, without storage."""
    config = load_config(plan.model, source)
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(
            config,
            dtype=TORCH_DTYPES[plan.model.dtype],
            attn_implementation=None if plan.model.attn == "sdpa" else plan.model.attn,  # None: SDPA if the model can
        )
        return tuners.attach(base, _plain(plan), total_steps=steps)


def reference_bytes(reference: ReferencePlan | None, weights: int) -> int:
    """Bytes of a reference that is a model of its own; `weights` are those of the trained model, which it may copy."""
    if reference is None or reference.kind != "model":
        return 0
    if reference.model is None:
        return weights
    source = models.fetch(reference.model)
    if reference.model.stored_quant is not None:
        return sum(path.stat().st_size for path in weight_files(source))
    with torch.device("meta"):
        other = AutoModelForCausalLM.from_config(
            load_config(reference.model, source), dtype=TORCH_DTYPES[reference.model.dtype]
        )
    quant = reference.model.quant
    whole = sum(p.nbytes for p in {id(p): p for p in other.parameters()}.values())
    return whole if quant is None else whole - saved_by_quantizing(other.requires_grad_(False), quant)


def reward_bytes(plan: SftPlan) -> int:
    """Bytes of the weights of the reward model, where there is one."""
    if plan.alignment is None or plan.alignment.reward_model is None:
        return 0
    return sum(path.stat().st_size for path in weight_files(models.fetch(plan.alignment.reward_model)))


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


def largest_batch(plan: TrainPlan, lengths: Sequence[int], steps: int) -> int:
    """Tokens of the largest forward pass the run will meet, in the order that the seed gives."""
    epochs = range(math.ceil(max(plan.group.num_train_epochs, 1)) + 1)
    of_steps = chain.from_iterable(step_sizes(plan, lengths, epoch) for epoch in epochs)
    return max((max(sizes) for sizes in islice(of_steps, steps * plan.world_size)), default=0)


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
        if func.__name__ == "_grouped_mm":  # in bf16 only; the product with one expert has and keeps the same sizes
            return args[0] @ args[1][0]
        if func is Tensor.__bool__ and args[0].is_meta:  # whether all tokens are of one sequence
            return True
        if func is Tensor.__contains__ and args[0].is_meta:  # whether there is padding
            return False
        return func(*args, **(kwargs or {}))


def saved_by_quantizing(model: nn.Module, quant: QuantPlan) -> int:
    """Bytes that the base's linear layers, the head left out, lose by it. HQQ's layers by name count as all alike."""
    base: Any = model if isinstance(model, PreTrainedModel) else model.get_base_model()  # type: ignore[operator]
    head, saved = base.get_output_embeddings(), 0.0
    for layer in base.modules():
        if type(layer) is nn.Linear and layer is not head and not layer.weight.requires_grad:
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
    """The tuner with the initialisation that needs no numbers, and the dtype that quantized layers give it."""
    settings = dict(plan.tuner.settings)
    if "init_lora_weights" in settings:
        settings["init_lora_weights"] = True
    quantized = plan.model.quant is not None or plan.model.stored_quant is not None
    return replace(plan.tuner, settings=settings, dtype=plan.tuner.dtype or ("fp32" if quantized else None))


def _tokenizer_bytes(tokenizer: PreTrainedTokenizerBase) -> int:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return sum(path.stat().st_size for path in Path(folder).iterdir())


def _kept(plan: TrainPlan, steps: int, per_epoch: int) -> int:
    """Checkpoints left at the end of the run."""
    if plan.group.save_strategy == "no":
        return 0
    every = plan.save_steps if plan.group.save_strategy == "steps" else per_epoch
    saves = math.ceil(steps / every)
    return saves if plan.save_total_limit is None else min(saves, max(plan.save_total_limit, 1))


def gib(size: int) -> str:
    """Bytes in words: `1.25 GiB`."""
    return f"{size / 2**30:.2f} GiB"
