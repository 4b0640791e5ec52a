"""The sizes of a run's model, computed for plain decoders without torch.

What autograd keeps of a forward pass follows from the operations: each notes here what it would keep, in their order.
`swift.training.meta_model` measures the same on the model itself; a test holds one to the other, and whatever is not
known here is measured there.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

from swift.models.known_decoders import KnownDecoder, known_decoder
from swift.plan.sft import SftPlan
from swift.plan.tuner import TunerPlan

NUMBER_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
ATTENTION_INPUTS = {"q_proj", "k_proj", "v_proj", "qkv_proj"}
"""Layers of known decoders that `--target_modules DEFAULT` stands for where nothing is registered."""


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """Sizes in bytes, counts in numbers, of the model with its tuner."""

    parameters: int
    trainable: int
    weights: int
    """As they are without quantization."""
    gradients: int
    projected: int
    """Of the gradients that the optimizer keeps numbers for."""
    quantized: int
    """By how much quantization makes the weights smaller."""
    packed: int
    """By how much packing frozen layers makes them larger."""
    activations: int
    """What a pass keeps for the backward pass, and what a layer needs on top when it goes backward."""


def known_sizes(plan: SftPlan, source: Path, tokens: int) -> ModelSizes | None:
    """Sizes of the model in `source` with the plan's tuner, and of a pass over `tokens`; None where it has to be asked.

    Only full tuning and plain LoRA of all-alike layers are known.
    """
    decoder = known_decoder(plan.model, source)
    if decoder is None or plan.model.dtype == "fp16" or plan.train.lisa or plan.train.galore:
        return None
    if decoder.window is not None and tokens > decoder.window:
        return None
    lora = _lora(plan.tuner, decoder, plan.model.dtype)
    if lora is None:
        return None
    width = NUMBER_BYTES[plan.model.dtype]
    linear = decoder.linear()
    added = decoder.layers * sum(lora.rank * sum(linear[name]) for name in lora.targets)
    full = not lora.targets
    trainable = decoder.parameters if full else added
    activations = _Pass(decoder, lora, tokens, width).activations(recompute=bool(plan.train.recompute))
    return ModelSizes(
        parameters=decoder.parameters + added,
        trainable=trainable,
        weights=(decoder.parameters + added) * width,
        gradients=trainable * width,
        projected=trainable * width,
        quantized=0,
        packed=0 if full else decoder.layers * sum(map(prod, linear.values())) * width,
        activations=activations,
    )


@dataclass(frozen=True)
class _Lora:
    """No targets: full tuning."""

    targets: frozenset[str] = frozenset()
    rank: int = 0
    dropout: bool = False


def _lora(plan: TunerPlan, decoder: KnownDecoder, dtype: str) -> _Lora | None:
    """What is trained; None for what only the model itself can tell."""
    if plan.sft_type == "full":
        frozen = plan.freeze_parameters or plan.freeze_parameters_ratio or plan.additional_trainable_parameters
        return None if frozen else _Lora()
    settings = plan.settings
    plain = (
        plan.sft_type == "lora"
        and plan.dtype in (None, dtype)
        and not (plan.target_regex or plan.modules_to_save or settings["use_dora"])
        and settings["bias"] == "none"
        and type(settings["r"]) is int
        and settings["r"] > 0
        and 0 <= settings["lora_dropout"] < 1
    )
    targets = _targets(plan, decoder)
    if not plain or not targets:
        return None
    return _Lora(targets, settings["r"], settings["lora_dropout"] > 0)


def _targets(plan: TunerPlan, decoder: KnownDecoder) -> frozenset[str] | None:
    linear = decoder.linear().keys()
    names: set[str] = set()
    for given in plan.target_modules:
        if given.upper() in ("DEFAULT", "AUTO"):
            registered = plan.default_targets
            if isinstance(registered, str):
                return None
            every = registered is not None and linear >= set(registered)
            if registered and not every:
                return None
            names.update(registered if registered and every else linear & ATTENTION_INPUTS)
        elif given.upper() == "ALL":
            names.update(linear)
        else:
            names.add(given)
    return frozenset(names) if names <= linear else None


@dataclass(frozen=True, eq=False)
class _Tensor:
    """A result of the pass that has memory of its own: how much, and whether a gradient goes through it."""

    bytes: int
    grad: bool


class _Pass:
    """A forward pass that computes nothing and notes what autograd keeps."""

    def __init__(self, decoder: KnownDecoder, lora: _Lora, tokens: int, width: int):
        self._decoder, self._lora, self._tokens, self._width = decoder, lora, tokens, width
        self._full = not lora.targets
        self._linear_sizes = decoder.linear()
        self._kept: set[_Tensor] = set()

    def activations(self, *, recompute: bool) -> int:
        """Bytes as `swift.training.meta_model.activation_bytes` counts them."""
        layers = self._decoder.layers
        hidden = self._embeddings()
        positions = [self._tensor(self._decoder.head_dim, grad=False) for _ in ("cosine", "sine")]
        inputs: list[_Tensor] = []
        for _ in range(layers):
            inputs.append(hidden)
            hidden = self._layer(hidden, positions)
        self._head(hidden)
        everything = self._bytes()
        layer = everything // layers
        if not recompute:
            return everything + layer
        self._kept = set(inputs)
        self._embeddings()
        self._head(hidden)
        return self._bytes() + 2 * layer

    def _bytes(self) -> int:
        return sum(tensor.bytes for tensor in self._kept)

    def _tensor(self, numbers: int, *, grad: bool, width: int | None = None) -> _Tensor:
        """So many numbers for each token."""
        return _Tensor(self._tokens * numbers * (width or self._width), grad)

    def _keep(self, *tensors: _Tensor, when: bool = True) -> None:
        if when:
            self._kept.update(tensors)

    def _embeddings(self) -> _Tensor:
        self._keep(self._tensor(1, grad=False, width=8), when=self._full)  # the ids
        self._keep(_Tensor(self._width, False), when=self._full and self._decoder.family.gemma)  # the scale
        return self._tensor(self._decoder.hidden_size, grad=self._full)

    def _head(self, hidden: _Tensor) -> None:
        """Of one token, but that is a part of all of them."""
        self._keep(self._norm(hidden, self._decoder.hidden_size), when=self._full)

    def _layer(self, hidden: _Tensor, positions: list[_Tensor]) -> _Tensor:
        size = self._decoder.hidden_size
        attended = self._attention(self._norm(hidden, size), positions)
        hidden = self._tensor(size, grad=hidden.grad or attended.grad)
        fed = self._feed_forward(self._norm(hidden, size))
        return self._tensor(size, grad=hidden.grad or fed.grad)

    def _linear(self, name: str, x: _Tensor) -> _Tensor:
        """With the adapter beside it, where it is a target."""
        inputs, outputs = self._linear_sizes[name]
        self._keep(x, when=self._full)
        if name not in self._lora.targets:
            return self._tensor(outputs, grad=x.grad or self._full)
        if self._lora.dropout:
            self._keep(self._tensor(inputs, grad=False), when=x.grad)  # the mask
            x = self._tensor(inputs, grad=x.grad)
        self._keep(x, self._tensor(self._lora.rank, grad=True))
        return self._tensor(outputs, grad=True)

    def _norm(self, x: _Tensor, size: int) -> _Tensor:
        """Root mean square over `size` numbers, in fp32; there may be several such groups for each token."""
        numbers = x.bytes // (self._tokens * self._width)
        exact = x if self._width == 4 else self._tensor(numbers, grad=x.grad, width=4)
        self._keep(exact, self._tensor(numbers // size, grad=x.grad, width=4), when=x.grad)
        normed = self._tensor(numbers, grad=x.grad, width=4)
        if self._decoder.family.gemma:
            self._keep(_Tensor(4 * size, self._full), when=x.grad)  # one more than the weight
        elif self._width != 4:
            normed = self._tensor(numbers, grad=x.grad)
        self._keep(normed, when=self._full)
        return self._tensor(numbers, grad=x.grad or self._full)

    def _attention(self, x: _Tensor, positions: list[_Tensor]) -> _Tensor:
        decoder, queries = self._decoder, self._decoder.heads * self._decoder.head_dim
        keys = decoder.kv_heads * decoder.head_dim
        if decoder.family.fused:
            q = k = v = self._linear("qkv_proj", x)
        else:
            q, k, v = (self._linear(name, x) for name in ("q_proj", "k_proj", "v_proj"))
        if decoder.family.head_norms:
            q, k = self._norm(q, decoder.head_dim), self._norm(k, decoder.head_dim)
        self._keep(*positions, when=q.grad or k.grad)
        q, k = self._tensor(queries, grad=q.grad), self._tensor(keys, grad=k.grad)
        grad = q.grad or k.grad or v.grad
        attended = self._tensor(queries, grad=grad)
        sums = self._tensor(decoder.heads, grad=False, width=4)
        self._keep(q, k, v, attended, sums, when=grad)
        return self._linear("o_proj", self._tensor(queries, grad=grad))

    def _feed_forward(self, x: _Tensor) -> _Tensor:
        if self._decoder.family.fused:
            gate = up = self._linear("gate_up_proj", x)
        else:
            gate, up = self._linear("gate_proj", x), self._linear("up_proj", x)
        inner = self._decoder.intermediate_size
        active = self._tensor(inner, grad=gate.grad)
        self._keep(gate, up, when=gate.grad)
        self._keep(active, when=up.grad)
        return self._linear("down_proj", self._tensor(inner, grad=gate.grad or up.grad))
