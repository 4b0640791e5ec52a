"""How many tokens a model can read at once, by its configuration: the one answer for training, engine and server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

FIELDS = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "seq_length",
    "max_sequence_length",
    "max_target_positions",
    "model_max_length",
)
"""What configurations call the length, the usual name first. A class may map a name to another (`attribute_map`)."""
SCALED_FROM_ORIGINAL = {"yarn", "longrope", "llama3"}
"""Kinds of rotary embedding that stretch `original_max_position_embeddings`; "dynamic" stretches the stated length."""
POSITIONS_AFTER_PADDING = {
    "camembert",
    "data2vec-text",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
"""Families that count positions from the one after `pad_token_id`: the first rows of their table stay unused."""


def context_length(config: PretrainedConfig) -> int | None:
    """Tokens a sequence may have, stretched rotary embeddings included; None when the model knows no limit."""
    stated = stated_length(config)
    if stated is None:
        return None
    return max(stated, *(stretched(rope, stated) for rope in rope_kinds(config).values()), 0)


def stated_length(config: PretrainedConfig) -> int | None:
    """The length that the configuration states, whatever its rotary embeddings make of it, or None."""
    text = config.get_text_config(decoder=True)
    fields = text.to_dict()
    for name in FIELDS:
        length = fields.get(text.attribute_map.get(name, name))
        if isinstance(length, int) and length > 0:  # XLNet and Transformer-XL say -1: no limit
            unused = fields["pad_token_id"] + 1 if text.model_type in POSITIONS_AFTER_PADDING else 0
            return length - unused
    return None


def rope_kinds(config: PretrainedConfig) -> dict[str, dict[str, Any]]:
    """Parameters of the rotary embeddings by the kind of layer; "" where all layers share one. Empty without any."""
    parameters = config.get_text_config(decoder=True).to_dict().get("rope_parameters") or {}
    if "rope_type" in parameters:
        return {"": parameters}
    return {kind: each for kind, each in parameters.items() if isinstance(each, dict)}


def stretched(rope: Mapping[str, Any], stated: int) -> int:
    """Tokens this rotary embedding was made for. "linear" stretches what is stated already, as Gemma 3 has it."""
    kind, factor = rope.get("rope_type"), rope.get("factor") or 1.0
    if kind in SCALED_FROM_ORIGINAL:
        return int((rope.get("original_max_position_embeddings") or stated) * factor)
    return int(stated * factor) if kind == "dynamic" else stated
