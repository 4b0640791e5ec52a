"""Attention that stays inside each sequence of a flattened batch, on SDPA, on any device.

A padding-free batch is one row of real tokens: sequences one after another, positions starting anew at each. Two
facts are known about such a row, where each sequence begins and that attention is causal, so no mask is needed: SDPA
runs once for each sequence. The work grows with the sum of the squared lengths, not with the square of the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "swift_varlen"


def sequence_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sequence_lengths: Sequence[int] | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each of `sequence_lengths` (they add up to T) of a flattened row.

    query (1, heads, T, dim), key and value (1, kv_heads, T, dim) -> (1, T, heads, dim). Without `sequence_lengths` it
    is transformers' own SDPA attention, so that the same model also evaluates padded batches and generates.
    """
    if sequence_lengths is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    lengths = list(sequence_lengths)
    pieces = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    outputs = []
    for q, k, v in pieces:
        window = _band(q.shape[2], sliding_window, q.device)
        out = scaled_dot_product_attention(
            q, k, v, attn_mask=window, is_causal=window is None, dropout_p=dropout, scale=scaling
        )
        outputs.append(out)
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _band(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """(length, length) mask of a causal sliding window, or None where plain causal attention is the same."""
    if window is None or length <= window:
        return None
    row = torch.arange(length, device=device)
    distance = row[:, None] - row[None, :]
    return (distance >= 0) & (distance < window)


def _mask(*, q_length: int, kv_length: int, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """No mask for a flattened row (no padding, no cache), transformers' own SDPA mask otherwise."""
    if attention_mask is None and q_length == kv_length:
        return None
    return sdpa_mask(q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **kwargs)


AttentionInterface.register(NAME, sequence_attention)
AttentionMaskInterface.register(NAME, _mask)


def lengths_of(position_ids: Tensor) -> tuple[int, ...]:
    """Lengths of the sequences in a flattened row of positions (1, T) that start at 0 anew for each sequence."""
    starts = (position_ids.reshape(-1) == 0).nonzero().reshape(-1)
    ends = torch.cat([starts[1:], starts.new_tensor([position_ids.numel()])])
    return tuple((ends - starts).tolist())


def keep_inside_sequences(model: PreTrainedModel) -> bool:
    """Switch `model` to `sequence_attention` and measure that a flattened row gives what its sequences give alone.

    False, with the model as it was, when the architecture cannot be switched or something else in it (a recurrent
    state, a convolution) reaches across sequences. Such a model trains on padded batches.
    """
    before = model.config._attn_implementation
    if before == "flash_attention_2":
        return True  # transformers reads the sequence borders from the positions there
    if before != "sdpa":
        return False
    try:
        model.set_attn_implementation(NAME)
    except ValueError:
        return False
    if _same_alone(model):
        return True
    model.set_attn_implementation(before)
    return False


@torch.no_grad()
def _same_alone(model: PreTrainedModel) -> bool:
    was_training = model.training
    model.eval()
    device = model.get_input_embeddings().weight.device
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = (torch.arange(13, device=device) * 7919 + 11) % vocabulary
    parts = ids.split([5, 8])
    positions = torch.cat([torch.arange(len(part), device=device) for part in parts])
    try:
        flat = model(
            input_ids=ids[None], position_ids=positions[None], use_cache=False, sequence_lengths=(5, 8)
        ).logits[0]
        alone = [model(input_ids=part[None], use_cache=False).logits[0] for part in parts]
    except TypeError:  # a forward of its own that takes no further keywords
        return False
    finally:
        model.train(was_training)
    expected = torch.cat(alone).float()
    tolerance = 1e-3 if flat.dtype == torch.float32 else 0.05
    return bool((flat.float() - expected).abs().max() <= tolerance * (1 + expected.abs().max()))
