"""The architectures that llama.cpp computes as transformers does, and their settings as a GGUF file has them.

The names of tensors are those of the package `gguf`. Here is what it does not know: rows that llama.cpp keeps in
another order, norms that it multiplies without adding one, and what its code takes for granted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import gguf
import numpy as np
from numpy.typing import NDArray

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.plan.gguf import CONVERTED

Array = NDArray[Any]
Fields = Mapping[str, Any]
"""Of a config.json, as transformers completes it."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How one class of transformers goes into a GGUF file."""

    arch: gguf.MODEL_ARCH
    pairs: Literal["halves", "neighbours"] = "halves"
    """Which two numbers of a head one rotary angle turns: those half a head apart, as transformers stores them, or
    neighbours. For the latter the rows of queries and keys are put in that order."""
    norm_less_one: bool = False
    """transformers multiplies by weight + 1 in its norms."""
    activations: tuple[str, ...] = ("silu", "swish")
    fixed: Callable[[Fields], str | None] = lambda fields: None
    """What of the configuration llama.cpp would compute otherwise, in words."""

    @property
    def name(self) -> str:
        """As GGUF calls it."""
        return gguf.MODEL_ARCH_NAMES[self.arch]


def _gemma_fixed(fields: Fields) -> str | None:
    return None if fields["tie_word_embeddings"] else "its head is not its embedding (tie_word_embeddings)"


def _gemma_scaled(fields: Fields) -> str | None:
    """llama.cpp scales attention by the size of a head in every Gemma but the one of 27 billion parameters."""
    scalar = fields["query_pre_attn_scalar"]
    if scalar != fields["head_dim"]:
        return f"query_pre_attn_scalar is {scalar} and a head has {fields['head_dim']}"
    return _gemma_fixed(fields)


def _layer_types(period: int) -> Callable[[Fields], str | None]:
    """Every `period`-th layer attends to everything."""

    def check(fields: Fields) -> str | None:
        kinds = fields["layer_types"]
        expected = ["full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(len(kinds))]
        return _gemma_scaled(fields) or (None if kinds == expected else f"layer_types is not one in {period}")

    return check


GELU = ("gelu_pytorch_tanh", "gelu")
_GEMMA: dict[str, Any] = {"norm_less_one": True, "activations": GELU}
ARCHITECTURES: Mapping[str, Architecture] = {
    "LlamaForCausalLM": Architecture(arch=gguf.MODEL_ARCH.LLAMA, pairs="neighbours"),
    "MistralForCausalLM": Architecture(arch=gguf.MODEL_ARCH.LLAMA, pairs="neighbours"),
    "Qwen2ForCausalLM": Architecture(arch=gguf.MODEL_ARCH.QWEN2),
    "Qwen3ForCausalLM": Architecture(arch=gguf.MODEL_ARCH.QWEN3),
    "GemmaForCausalLM": Architecture(arch=gguf.MODEL_ARCH.GEMMA, fixed=_gemma_fixed, **_GEMMA),
    "Gemma2ForCausalLM": Architecture(arch=gguf.MODEL_ARCH.GEMMA2, fixed=_layer_types(2), **_GEMMA),
    "Gemma3ForCausalLM": Architecture(arch=gguf.MODEL_ARCH.GEMMA3, fixed=_layer_types(6), **_GEMMA),
    "Phi3ForCausalLM": Architecture(arch=gguf.MODEL_ARCH.PHI3),
}
"""By the names of CONVERTED."""


def architecture_of(fields: Fields, where: str) -> Architecture:
    """Raises SwiftError for an architecture, or a setting of it, that does not convert; `where` is the model."""
    name = (fields.get("architectures") or ["(none named)"])[0]
    if name not in ARCHITECTURES:
        raise SwiftError(
            f"{name} does not convert to GGUF",
            where=where,
            why=f"converted are {', '.join(each.removesuffix('ForCausalLM') for each in CONVERTED)}",
            next="llama.cpp's own convert_hf_to_gguf.py knows more of them",
        )
    architecture = ARCHITECTURES[name]
    activation = fields.get("hidden_activation") or fields["hidden_act"]
    wrong = architecture.fixed(fields)
    if activation not in architecture.activations:
        wrong = f"its activation is {activation}"
    if wrong:
        raise SwiftError(f"llama.cpp would not compute this {name} as transformers does", where=where, why=wrong)
    return architecture


def write_settings(writer: gguf.GGUFWriter, fields: Fields, where: str) -> tuple[int, dict[str, Array]]:
    """Put the architecture's settings into the file.

    -> the positions it has, and tensors that follow from the settings, by their names in the file.
    """
    length = positions(fields)
    if length < fields["max_position_embeddings"]:
        log.warning(
            "llama.cpp has no sliding window for this architecture: the file says that it has %d positions, not %d",
            length,
            fields["max_position_embeddings"],
        )
    short = short_positions(fields)
    if short is not None and short < length:
        log.warning(
            "run the file in a context of at most %d tokens, unless your texts are longer: in a larger one llama.cpp "
            "takes this model's long factors (LongRoPE) from the first token on, transformers only in longer texts",
            short,
        )
    head = head_size(fields)
    writer.add_block_count(fields["num_hidden_layers"])
    writer.add_context_length(length)
    writer.add_embedding_length(fields["hidden_size"])
    writer.add_feed_forward_length(fields["intermediate_size"])
    writer.add_head_count(fields["num_attention_heads"])
    writer.add_head_count_kv(key_heads(fields))
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(fields["rms_norm_eps"])
    writer.add_vocab_size(fields["vocab_size"])
    if fields.get("attn_logit_softcapping"):
        writer.add_attn_logit_softcapping(fields["attn_logit_softcapping"])
    if fields.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(fields["final_logit_softcapping"])
    if _slides(fields):
        writer.add_sliding_window(fields["sliding_window"])
    rope = dict(fields["rope_parameters"])
    if "full_attention" in rope:  # Gemma 3: one for each kind of layer
        sliding, rope = rope["sliding_attention"], dict(rope["full_attention"])
        if sliding["rope_theta"] != 10_000 or sliding.get("rope_type", "default") != "default":
            raise SwiftError(
                "llama.cpp takes 10,000 for the rotary base of Gemma 3's sliding layers",
                where=where,
                why=f"this model has {sliding}",
            )
    return length, _write_rope(writer, rope, fields, where)


def head_size(fields: Fields) -> int:
    """Numbers of one attention head."""
    return fields.get("head_dim") or fields["hidden_size"] // fields["num_attention_heads"]


def key_heads(fields: Fields) -> int:
    """Heads of keys and values."""
    return fields.get("num_key_value_heads") or fields["num_attention_heads"]


def _slides(fields: Fields) -> bool:
    """Whether llama.cpp limits how far this architecture's layers look back."""
    return bool(fields.get("sliding_window")) and fields["model_type"] in ("gemma2", "gemma3_text")


def positions(fields: Fields) -> int:
    """Tokens of prompt and answer up to which llama.cpp computes as transformers does; the file says that many."""
    length, window = fields["max_position_embeddings"], fields.get("sliding_window")
    used = fields.get("use_sliding_window", True)  # only Qwen can switch it off
    return window if window and used and not _slides(fields) and window < length else length


def short_positions(fields: Fields) -> int | None:
    """The longest context in which llama.cpp turns positions by the short factors of LongRoPE; None for other models.

    It goes by the size of the context, and transformers by the length of the text: in a longer context short texts are
    computed otherwise (ggml-org/llama.cpp issue 24823).
    """
    rope = fields["rope_parameters"]
    if rope.get("rope_type") != "longrope":
        return None
    return rope.get("original_max_position_embeddings") or fields.get("original_max_position_embeddings")


def bytes_per_token(fields: Fields) -> int:
    """What the keys and values of one token take in 16 bits."""
    return 2 * 2 * fields["num_hidden_layers"] * key_heads(fields) * head_size(fields)


ROPE_FACTORS = ("llama", "mistral")
"""Models of which llama.cpp reads a factor for each rotary frequency."""
YARN: Mapping[str, Any] = {
    "beta_fast": 32,
    "beta_slow": 1,
    "truncate": True,
    "mscale": None,
    "mscale_all_dim": None,
    "attention_factor": None,
}
"""What llama.cpp computes, whatever a file says."""


def _write_rope(writer: gguf.GGUFWriter, rope: Fields, fields: Fields, where: str) -> dict[str, Array]:
    kind = rope.get("rope_type", "default")
    turned = int(head_size(fields) * (rope.get("partial_rotary_factor") or fields.get("partial_rotary_factor") or 1.0))
    writer.add_rope_dimension_count(turned)
    writer.add_rope_freq_base(rope["rope_theta"])
    length = fields["max_position_embeddings"]
    original: int = rope.get("original_max_position_embeddings") or fields.get("original_max_position_embeddings") or 0
    if kind == "default":
        return {}
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
        return {}
    if kind == "llama3" and fields["model_type"] in ROPE_FACTORS:
        return {"rope_freqs.weight": _llama3_factors(rope, turned)}
    if kind == "yarn" and all(rope.get(name) in (None, value) for name, value in YARN.items()):
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(original or length)
        return {}
    if kind == "longrope" and fields["model_type"] == "phi3" and original:
        stretch = length / original
        share = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
        share = rope.get("attention_factor") or share
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(share)
        names = {"rope_factors_long.weight": "long_factor", "rope_factors_short.weight": "short_factor"}
        return {name: np.array(rope[key], dtype=np.float32) for name, key in names.items()}
    raise SwiftError(f"llama.cpp does not stretch positions as this model does ({kind})", where=where, why=str(rope))


def _llama3_factors(rope: Fields, turned: int) -> Array:
    """What each rotary frequency is divided by: Llama 3.1's rule, as in transformers' `_compute_llama3_parameters`."""
    frequencies = 1.0 / rope["rope_theta"] ** (np.arange(0, turned, 2, dtype=np.float64) / turned)
    lengths = 2 * math.pi / frequencies
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    original = rope["original_max_position_embeddings"]
    smooth = (original / lengths - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    factors = np.where(lengths < original / high, 1.0, np.where(lengths > original / low, factor, between))
    return factors.astype(np.float32)


def stored(architecture: Architecture, name: str, values: Array, fields: Fields) -> Array:
    """A tensor of transformers, by its name there, as llama.cpp wants it."""
    if architecture.norm_less_one and name.endswith("norm.weight"):
        return values + 1
    if architecture.pairs == "neighbours":
        heads = {"q_proj": fields["num_attention_heads"], "k_proj": key_heads(fields)}.get(name.split(".")[-2])
        if heads:
            halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
            return halves.swapaxes(1, 2).reshape(values.shape)
    return values
