"""Attention that stays inside each sequence of a flattened batch, on any device.

A padding-free batch is one row of real tokens: sequences one after another, positions starting anew at each. Two
facts are known about such a row, where each sequence begins and that attention is causal, so no mask is needed: SDPA
runs once for each sequence, or one kernel for all of them where a GPU has it (flash_varlen.py). The work grows with the
sum of the squared lengths, not with the square of the sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from swift.training.finite_weights import require_finite_weights
from swift.training.flash_varlen import as_computed, flash_attention, has_kernel

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
    prefix_lengths: Sequence[int] | None = None,
    both_ways: Sequence[Sequence[tuple[int, int]]] | None = None,
    sliding_window: int | None = None,
    sequence_group: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each of `sequence_lengths` (they add up to T) of a flattened row.

    A sequence with a number above 0 in `prefix_lengths` goes on after that many first tokens of the last one before it
    that has 0.

    `both_ways` are, for each sequence, first place and end of the stretches whose tokens see all of the stretch, a
    window or not: the pieces of an image in some models.

    With a `sequence_group` (`swift.training.parallel.sequence`) the T tokens are spread over its processes.

    query (1, heads, T, dim), key and value (1, kv_heads, T, dim) -> (1, T, heads, dim). Without `sequence_lengths` it
    is transformers' own SDPA attention, so that the same model also evaluates padded batches and generates.
    """
    if sequence_group is not None:
        how = {"dropout": dropout, "scaling": scaling, "sliding_window": sliding_window, "attention_mask": None}
        rows = {"sequence_lengths": sequence_lengths, "prefix_lengths": prefix_lengths, "both_ways": both_ways}
        inner = partial(sequence_attention, module, **rows)
        return sequence_group.attend(inner, query, key, value, **how), None
    if sequence_lengths is None:
        if attention_mask is None and query.shape[2] == key.shape[2]:
            attention_mask = _band(query.shape[2], sliding_window, query.device)
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    query, key, value = as_computed(query, key, value)
    if both_ways is None and has_kernel(query, key, value, dropout):
        prefixes = None if prefix_lengths is None else tuple(prefix_lengths)
        lengths = tuple(sequence_lengths)
        return flash_attention(query, key, value, lengths, prefixes, scaling=scaling, window=sliding_window), None
    how = {"dropout_p": dropout, "scale": scaling}
    prefixes = prefix_lengths or [0] * len(sequence_lengths)
    stretches = both_ways or [()] * len(sequence_lengths)
    return _one_by_one((query, key, value), sequence_lengths, prefixes, stretches, sliding_window, how), None


def _one_by_one(
    states: tuple[Tensor, Tensor, Tensor],
    lengths: Sequence[int],
    prefixes: Sequence[int],
    both_ways: Sequence[Sequence[tuple[int, int]]],
    window: int | None,
    how: dict[str, Any],
) -> Tensor:
    query, key, value = states
    groups = query.shape[1] // key.shape[1]
    # Elsewhere not every kernel takes fewer heads of keys. Without numbers the memory of a CPU is estimated.
    share_heads = groups > 1 and query.device.type in ("cpu", "meta")
    if groups > 1 and not share_heads:
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    pieces = list(zip(*(state.split(list(lengths), 2) for state in (query, key, value)), strict=True))
    outputs, first = [], pieces[0]
    for (q, k, v), prefix, stretches in zip(pieces, prefixes, both_ways, strict=True):
        if prefix:
            k, v = torch.cat([first[1][:, :, :prefix], k], 2), torch.cat([first[2][:, :, :prefix], v], 2)
        else:
            first = (q, k, v)
        again = prefix if window is None and not stretches and _long(q.shape[2], prefix) else 0
        if again:
            q = torch.cat([first[0][:, :, :again], q], 2)
        mask = _band(q.shape[2], window, q.device, prefix - again)
        if stretches:
            mask = _with_stretches(mask, stretches, q)
        out = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=share_heads, **how
        )
        outputs.append(out[:, :, again:].transpose(1, 2))
    return torch.cat(outputs, dim=1)


def _long(length: int, prefix: int) -> bool:
    """Whether it is cheaper to attend from the prefix once more than to say by a mask which keys a token sees.

    Without a mask SDPA leaves out blocks of 512 keys that nothing sees. Forward and backward of 9 heads on two cores,
    with a mask and without: 10 and 11 ms for 300 tokens after 25, 157 and 100 for 1,500 after 25, 267 and 250 after
    1,000, 799 and 977 for 2,000 after 3,000.
    """
    return length > 512 and 2 * prefix < length


def _band(length: int, window: int | None, device: torch.device, prefix: int = 0) -> Tensor | None:
    """(length, prefix + length) mask of `length` tokens after a prefix, causal and inside a sliding window.

    None where there is no prefix and plain causal attention is the same.
    """
    if not prefix and (window is None or length <= window):
        return None
    distance = torch.arange(prefix, prefix + length, device=device)[:, None]
    distance = distance - torch.arange(prefix + length, device=device)[None, :]
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


def _with_stretches(mask: Tensor | None, stretches: Sequence[tuple[int, int]], query: Tensor) -> Tensor:
    """The mask (length, length) of a sequence in which each stretch sees itself both ways."""
    if mask is None:
        mask = torch.ones(query.shape[2], query.shape[2], dtype=torch.bool, device=query.device).tril()
    for first, end in stretches:
        mask[first:end, first:end] = True
    return mask


def flat_mask(*, q_length: int, kv_length: int, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """No mask for a flattened row (no padding, no cache), transformers' own SDPA mask otherwise."""
    if attention_mask is None and q_length == kv_length:
        return None
    return sdpa_mask(q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **kwargs)


AttentionInterface.register(NAME, sequence_attention)
AttentionMaskInterface.register(NAME, flat_mask)


def keep_inside_sequences(model: PreTrainedModel) -> bool:
    """Switch `model` to `sequence_attention` and measure that a flattened row gives what its sequences give alone.

    False, with the model as it was, when the architecture cannot be switched or something else in it (a recurrent
    state, a convolution) reaches across sequences. Such a model trains on padded batches. Raises CheckFailed for one
    with a weight that is not a number.
    """
    before = model.config._attn_implementation
    if before == "flash_attention_2":
        return True  # transformers reads the sequence borders from the positions there
    if before != "sdpa":
        return False
    expected = _alone(model)
    require_finite_weights(model, expected)
    try:
        model.set_attn_implementation(NAME)
    except ValueError:
        return False
    if _flat_equals(model, expected):
        return True
    model.set_attn_implementation(before)
    return False


def shares_prefixes(model: PreTrainedModel) -> bool:
    """Whether two sequences may follow one prefix in a flattened row, measured on a model that takes such rows."""
    if model.config._attn_implementation != NAME:
        return False
    prefix, _ = PROBE
    ids = _probe_ids(model)
    first, second = torch.cat([ids, ids[:, :3] + 1], 1), torch.cat([ids[:, :prefix], ids[:, 1:5]], 1)
    own = second[:, prefix:]
    flat = torch.cat([first, own], 1)
    places = torch.arange(first.shape[1], device=ids.device), torch.arange(prefix, second.shape[1], device=ids.device)
    with torch.no_grad(), evaluating(model):
        logits = model(
            input_ids=flat,
            position_ids=torch.cat(places)[None],
            use_cache=False,
            sequence_lengths=(first.shape[1], own.shape[1]),
            prefix_lengths=(0, prefix),
        ).logits.float()
        alone = model(input_ids=second, use_cache=False).logits[:, prefix:].float()
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.05
    return bool((logits[:, -own.shape[1] :] - alone).abs().max() <= tolerance * (1 + alone.abs().max()))


PROBE = (7, 7)
"""Lengths of the two sequences that are tried: longer than the convolutions of recurrent models, no border of blocks.

They are equal, so that one pass gives both alone, and all passes have as many rows: oneDNN writes its code for each
number of rows anew.
"""


def _probe_ids(model: PreTrainedModel) -> Tensor:
    return (torch.arange(sum(PROBE), device=model.device) * 7919 + 11)[None] % model.config.get_text_config().vocab_size


@torch.no_grad()
def _alone(model: PreTrainedModel) -> Tensor:
    """Logits (1, T, V) of the sequences as rows of a batch, with the attention the model came with."""
    with evaluating(model):
        logits = model(input_ids=_probe_ids(model).view(len(PROBE), -1), use_cache=False).logits
        return logits.flatten(0, 1)[None].float()


@torch.no_grad()
def _flat_equals(model: PreTrainedModel, expected: Tensor) -> bool:
    ids = _probe_ids(model)
    positions = torch.cat([torch.arange(length, device=ids.device) for length in PROBE])[None]
    with evaluating(model):
        try:
            logits = model(input_ids=ids, position_ids=positions, use_cache=False, sequence_lengths=PROBE).logits
        except TypeError:  # a forward of its own that takes no further keywords
            return False
    tolerance = 1e-3 if logits.dtype == torch.float32 else 0.05
    return bool((logits.float() - expected).abs().max() <= tolerance * (1 + expected.abs().max()))


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout, and as it was behind that."""
    was_training = model.training
    model.eval()
    yield
    model.train(was_training)
