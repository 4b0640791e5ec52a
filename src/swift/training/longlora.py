"""LongLoRA's shifted sparse attention (Chen et al., arXiv 2309.12307), while a model is trained.

Half of the heads attend inside groups of tokens, the other half inside groups that are shifted by half a group, so that
what is learned passes from group to group. It answers with full attention. Groups count from the first token of each
sequence, in flattened and in padded batches; the shifted half begins with half a group, and nothing wraps around: the
first tokens of a row do not see its last ones, which the paper's code lets them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv

from swift.core.errors import SwiftError
from swift.training.varlen_attention import NAME, flat_mask, sequence_attention

GROUP_SHARE = 0.25
"""A group in shares of the longest row, as in the paper's experiments."""


def shift_attention(model: PreTrainedModel, longest: int | None, part: str | None = None) -> None:
    """Let `model`, or the `part` of it that has this configuration, attend that way while it is trained on rows of up
    to `longest` tokens.

    Raises SwiftError where that is not known, or the model's attention cannot be switched.
    """
    if longest is None:
        raise SwiftError(
            "--sft_type longlora needs to know how long rows get",
            where="--max_length",
            why="attention stays inside groups of a quarter of that",
            next="give --max_length, the length to train for",
        )
    group = max(2, int(GROUP_SHARE * longest))
    name = f"{NAME}_shifted_{group}"
    AttentionInterface.register(name, partial(_attention, group=group))
    AttentionMaskInterface.register(name, flat_mask)
    try:
        model.set_attn_implementation(name if part is None else {part: name})
    except ValueError as error:
        raise SwiftError(
            f"--sft_type longlora cannot change how {type(model).__name__} attends",
            where="--sft_type",
            why=str(error).partition("\n")[0],
            next="use --sft_type lora",
        ) from error


def group_lengths(length: int, group: int, first: int) -> list[int]:
    """Lengths of the groups of a sequence, the first of which has `first` tokens."""
    rest = max(0, length - first)
    lengths = [min(first, length), *[group] * (rest // group), rest % group]
    return [each for each in lengths if each]


def inside_groups(groups: Sequence[int], stretches: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """What each group of a sequence has of stretches that see themselves both ways."""
    inside: list[list[tuple[int, int]]] = []
    begin = 0
    for length in groups:
        end = begin + length
        own = [(max(first, begin) - begin, min(last, end) - begin) for first, last in stretches]
        inside.append([(first, last) for first, last in own if first < last])
        begin = end
    return inside


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    group: int,
    sequence_lengths: Sequence[int] | None = None,
    both_ways: Sequence[Sequence[tuple[int, int]]] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As `sequence_attention`, which it is where nothing is trained."""
    if not module.training:
        rows_of = {"sequence_lengths": sequence_lengths, "both_ways": both_ways}
        return sequence_attention(module, query, key, value, attention_mask, **rows_of, **kwargs)
    rows, heads, length, width = query.shape
    key, value = repeat_kv(key, heads // key.shape[1]), repeat_kv(value, heads // value.shape[1])
    if sequence_lengths is None:  # a padded row is one sequence: no token sees the padding behind it
        query, key, value = (states.transpose(0, 1).reshape(1, heads, -1, width) for states in (query, key, value))
    lengths = list(sequence_lengths or [length] * rows)
    outputs = []
    for own, first in ((slice(None, heads // 2), group), (slice(heads // 2, None), group // 2)):
        groups = [group_lengths(each, group, first) for each in lengths]
        given: dict[str, Any] = {"sequence_lengths": [part for parts in groups for part in parts]}
        if both_ways is not None:
            inside = map(inside_groups, groups, both_ways)
            given["both_ways"] = [stretches for each in inside for stretches in each]
        output, _ = sequence_attention(module, query[:, own], key[:, own], value[:, own], None, **given, **kwargs)
        outputs.append(output)
    return torch.cat(outputs, dim=2).view(rows, length, heads, width), None
