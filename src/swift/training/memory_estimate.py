"""How much memory and disk a run will take, before a byte of its weights is read."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from swift import models
from swift.core.log import log
from swift.models.integrity import weight_files
from swift.models.known_decoders import known_decoder
from swift.plan.model import read_config
from swift.plan.rlhf import ReferencePlan
from swift.plan.sft import SftPlan
from swift.plan.train import CHUNK_BYTES, TrainPlan
from swift.training.model_sizes import NUMBER_BYTES, known_sizes
from swift.training.passes import step_sizes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
    states: int = 2
    """Numbers that the optimizer keeps for each trained one."""
    layer: int = 0
    """Bytes of the weights of a decoder layer."""
    outside: int = 0
    """Bytes of the weights that are in no layer."""

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
    sizes = known_sizes(plan, source, tokens)
    if sizes is None:
        from swift.training.meta_model import measured  # brings torch and the class of the model

        sizes = measured(plan, source, tokens, steps)
    states = next((n for name, n in STATES.items() if name in plan.train.optim.optim), 2)
    weights = sizes.weights
    stored = sum(path.stat().st_size for path in weight_files(source))
    quant, loading = plan.model.quant, 0
    if quant is not None:
        loading = weights + stored if quant.method == "hqq" else 0
        weights -= sizes.quantized
    elif plan.model.stored_quant is not None:
        weights = stored
    elif plan.train.pack_frozen:
        weights += sizes.packed
    reference = plan.alignment.reference if plan.alignment else None
    return Estimate(
        parameters=sizes.parameters,
        trainable=sizes.trainable,
        weights=weights,
        gradients=sizes.gradients,
        optimizer=states * sizes.projected,
        activations=sizes.activations,
        tokens=tokens,
        mapped=stored if quant is not None and plan.train.device == "cpu" else 0,
        loading=loading,
        reference=reference_bytes(reference, weights),
        reference_first=reference is not None and reference.asked_first(steps, per_epoch),
        reward=reward_bytes(plan),
        states=states,
        **_parts(source, weights, sizes.parameters),
    )


def _parts(source: Path, weights: int, parameters: int) -> dict[str, int]:
    """How weights are divided into layers and the rest, which is embeddings and head."""
    config = read_config(source)
    text = config.get("text_config") or config
    layers, width = text.get("num_hidden_layers") or 1, weights / max(1, parameters)
    tables = 1 if config.get("tie_word_embeddings", text.get("tie_word_embeddings")) else 2
    outside = min(weights, int(tables * text.get("vocab_size", 0) * text.get("hidden_size", 0) * width))
    return {"layer": (weights - outside) // layers, "outside": outside}


def disk_estimate(
    plan: SftPlan, sizes: Estimate, tokenizer: PreTrainedTokenizerBase, *, steps: int, per_epoch: int
) -> DiskEstimate:
    """What the run will write."""
    written = sizes.weights if plan.tuner.sft_type in ("full", "llamapro") else sizes.gradients
    state = 0 if plan.train.group.save_only_model else sizes.optimizer
    return DiskEstimate(
        checkpoint=written + state + _tokenizer_bytes(tokenizer) + CHECKPOINT_EXTRA,
        checkpoints=kept_checkpoints(plan.train, steps, per_epoch),
    )


def reference_bytes(reference: ReferencePlan | None, weights: int) -> int:
    """Bytes of a reference that is a model of its own; `weights` are those of the trained model, which it may copy."""
    if reference is None or reference.kind != "model":
        return 0
    if reference.model is None:
        return weights
    source = models.fetch(reference.model)
    if reference.model.stored_quant is not None:
        return sum(path.stat().st_size for path in weight_files(source))
    decoder = known_decoder(reference.model, source)
    if decoder is not None:
        return decoder.parameters * NUMBER_BYTES[reference.model.dtype]
    from swift.training.meta_model import measured_weights

    return measured_weights(reference.model, source)


def reward_bytes(plan: SftPlan) -> int:
    """Bytes of the weights of the reward model, where there is one."""
    if plan.alignment is None or plan.alignment.reward_model is None:
        return 0
    return sum(path.stat().st_size for path in weight_files(models.fetch(plan.alignment.reward_model)))


def largest_batch(plan: TrainPlan, lengths: Sequence[int], steps: int) -> int:
    """Tokens of the largest forward pass the run will meet, in the order that the seed gives."""
    epochs = range(math.ceil(max(plan.group.num_train_epochs, 1)) + 1)
    of_steps = chain.from_iterable(step_sizes(plan, lengths, epoch) for epoch in epochs)
    return max((max(sizes) for sizes in islice(of_steps, steps * plan.data_parallel)), default=0)


def _tokenizer_bytes(tokenizer: PreTrainedTokenizerBase) -> int:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return sum(path.stat().st_size for path in Path(folder).iterdir())


def kept_checkpoints(plan: TrainPlan, steps: int, per_epoch: int) -> int:
    """Checkpoints left at the end of the run."""
    if plan.group.save_strategy == "no":
        return 0
    every = plan.save_steps if plan.group.save_strategy == "steps" else per_epoch
    saves = math.ceil(steps / every)
    return saves if plan.save_total_limit is None else min(saves, max(plan.save_total_limit, 1))


def gib(size: int) -> str:
    """Bytes in words: `1.25 GiB`."""
    return f"{size / 2**30:.2f} GiB"
