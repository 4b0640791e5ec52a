"""Plain decoders that config.json says everything about, so that nobody has to import torch to ask for it.

Layers of attention and a gated feed-forward part, one after the other, all alike. Whatever is not exactly as it is
written here (another class, a field of an unknown value) is not known, and transformers is asked instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swift.models.context_window import stretched
from swift.plan.model import ModelPlan, read_config

SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
ROPES = ("default", "linear", "llama3")
"""Kinds of rotary embedding that leave what a pass computes as it is."""
NOTHING = (None, False, 0)
WITHOUT = (
    "attention_dropout",
    "embd_pdrop",
    "is_encoder_decoder",
    "per_layer_config",
    "quantization_config",
    "resid_pdrop",
    "use_bidirectional_attention",
    "use_sliding_window",
)
"""Fields that change what is computed, and may only be absent or off."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """What the configurations of a model type leave unsaid."""

    architecture: str
    activations: tuple[str, ...] = ("silu",)
    head_dim: int | None = None
    """None: hidden size over heads."""
    kv_heads: int | None = None
    """None: as many as heads."""
    tied: bool = False
    bias: tuple[str, ...] = ()
    """Linear layers that have one whatever the configuration says."""
    may_have_bias: tuple[str, ...] = ("attention_bias", "mlp_bias")
    """Fields that give biases to the linear layers of attention and of the feed-forward part."""
    fused: bool = False
    """Whether query, key and value are one layer, and gate and up another."""
    head_norms: bool = False
    """Whether queries and keys are normalized in each head."""
    gemma: bool = False
    """Whether norms are multiplied in fp32 by one more than their weight, and embeddings are scaled."""
    windowed: bool = False
    """Whether `sliding_window` counts without `use_sliding_window`, and has to be said."""


FAMILIES: Mapping[str, Family] = {
    "llama": Family(architecture="LlamaForCausalLM"),
    "mistral": Family(architecture="MistralForCausalLM", kv_heads=8, may_have_bias=(), windowed=True),
    "qwen2": Family(
        architecture="Qwen2ForCausalLM", kv_heads=32, bias=("q_proj", "k_proj", "v_proj"), may_have_bias=()
    ),
    "qwen3": Family(
        architecture="Qwen3ForCausalLM",
        head_dim=128,
        kv_heads=32,
        may_have_bias=("attention_bias",),
        head_norms=True,
    ),
    "gemma": Family(
        architecture="GemmaForCausalLM",
        activations=("gelu_pytorch_tanh", "gelu"),
        head_dim=256,
        kv_heads=16,
        tied=True,
        may_have_bias=("attention_bias",),
        gemma=True,
    ),
    "phi3": Family(architecture="Phi3ForCausalLM", may_have_bias=(), fused=True, windowed=True),
    "smollm3": Family(architecture="SmolLM3ForCausalLM", kv_heads=4, tied=True),
}
"""By `model_type`."""


@dataclass(frozen=True, kw_only=True)
class KnownDecoder:
    """The sizes of a plain decoder."""

    family: Family
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied: bool
    context_length: int
    biases: frozenset[str] = field(default_factory=frozenset)
    """Linear layers that have one."""
    window: int | None = None
    """Tokens that attention looks back."""

    def linear(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each linear layer of a decoder layer, by name, in their order."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        hidden, inner = self.hidden_size, self.intermediate_size
        if self.family.fused:
            return {
                "o_proj": (queries, hidden),
                "qkv_proj": (hidden, queries + 2 * keys),
                "gate_up_proj": (hidden, 2 * inner),
                "down_proj": (inner, hidden),
            }
        return {
            "q_proj": (hidden, queries),
            "k_proj": (hidden, keys),
            "v_proj": (hidden, keys),
            "o_proj": (queries, hidden),
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }

    @property
    def parameters(self) -> int:
        """Numbers in all weights, shared ones once."""
        layers = self.linear().items()
        linear = sum(inputs * outputs + outputs * (name in self.biases) for name, (inputs, outputs) in layers)
        norms = 2 * self.hidden_size + (2 * self.head_dim if self.family.head_norms else 0)
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tied else 2)
        return embeddings + self.layers * (linear + norms) + self.hidden_size


def known_decoder(plan: ModelPlan, folder: Path) -> KnownDecoder | None:
    """The plan's model in `folder`, if it is one; None where anything about it is not known."""
    if plan.rope_scaling or plan.model_kwargs or plan.quant or plan.stored_quant or plan.attn != "sdpa":
        return None
    return from_config(read_config(folder))


def from_config(config: Mapping[str, Any]) -> KnownDecoder | None:
    """The decoder that the fields of a config.json describe; None where anything about it is not known."""
    family = FAMILIES.get(str(config.get("model_type")))
    sizes = [config.get(name) for name in (*SIZES, "max_position_embeddings")]
    if family is None or config.get("architectures") != [family.architecture]:
        return None
    if not all(type(size) is int and size > 0 for size in sizes) or any(config.get(n) not in NOTHING for n in WITHOUT):
        return None
    hidden, inner, layers, heads, vocab, stated = (config[name] for name in (*SIZES, "max_position_embeddings"))
    kv_heads = config.get("num_key_value_heads", family.kv_heads) or heads
    head_dim = config.get("head_dim", family.head_dim or (hidden // heads if hidden % heads == 0 else None))
    tied = config.get("tie_word_embeddings", family.tied)
    context = _context_length(config, stated)
    biases = _biases(config, family)
    usual = (
        context is not None
        and biases is not None
        and config.get("hidden_act", family.activations[0]) in family.activations
        and set(config.get("layer_types") or ["full_attention"]) == {"full_attention"}
        and type(tied) is bool
        and all(type(number) is int and number > 0 for number in (kv_heads, head_dim))
    )
    if not usual or heads % kv_heads or (family.windowed and "sliding_window" not in config):
        return None
    assert context is not None and biases is not None
    return KnownDecoder(
        family=family,
        hidden_size=hidden,
        intermediate_size=inner,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=vocab,
        tied=tied,
        context_length=context,
        biases=biases,
        window=config.get("sliding_window") if family.windowed else None,
    )


def _biases(config: Mapping[str, Any], family: Family) -> frozenset[str] | None:
    """Names of the linear layers that have one."""
    names = set(family.bias)
    for flag, layers in (
        ("attention_bias", ("q_proj", "k_proj", "v_proj", "o_proj")),
        ("mlp_bias", ("gate_proj", "up_proj", "down_proj")),
    ):
        value = config.get(flag, False)
        if type(value) is not bool:
            return None
        if value and flag in family.may_have_bias:
            names.update(layers)
    return frozenset(names)


def _context_length(config: Mapping[str, Any], stated: int) -> int | None:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        return None
    kind = rope.get("rope_type", rope.get("type", "default"))
    whole = all(fields.get("partial_rotary_factor", 1.0) == 1.0 for fields in (config, rope))
    if not whole or kind not in ROPES or any(isinstance(value, Mapping) for value in rope.values()):
        return None
    if kind == "llama3" and not {"factor", "original_max_position_embeddings"} <= rope.keys():
        return None
    return max(stated, stretched(rope, stated))
