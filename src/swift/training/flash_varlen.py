"""Attention inside the sequences of a flattened batch by one kernel for all of them, on GPUs that have FlashAttention.

`torch.nn.attention.varlen` is that kernel. It reads the borders of the sequences on the GPU and their greatest length
on the CPU, and both are known here without asking the GPU for anything: a training step never waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor
from torch.backends.cuda import SDPAParams, can_use_flash_attention


def as_computed(*states: Tensor) -> tuple[Tensor, ...]:
    """The states in the type that autocast computes attention in."""
    kind = states[0].device.type
    if kind != "cuda" or not torch.is_autocast_enabled(kind):
        return states
    return tuple(state.to(torch.get_autocast_dtype(kind)) for state in states)


def has_kernel(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> bool:
    """Whether the kernel takes such states: its GPU, its types, its sizes of heads, and no dropout."""
    if not query.is_cuda or dropout or value.shape[-1] != query.shape[-1]:
        return False
    return can_use_flash_attention(SDPAParams(query, key, value, None, 0.0, True, query.shape[1] != key.shape[1]))


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: tuple[int, ...],
    prefixes: tuple[int, ...] | None,
    *,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    """What `varlen_attention.sequence_attention` computes.

    query (1, heads, T, dim), key and value (1, kv_heads, T, dim) -> (1, T, heads, dim).
    """
    from torch.nn.attention.varlen import varlen_attn  # imports the compiler, which most runs do without

    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    key_lengths = lengths
    if prefixes is not None and any(prefixes):
        key_lengths = tuple(map(sum, zip(lengths, prefixes, strict=True)))
        places = keys_in_sight(lengths, prefixes, q.device)
        k, v = k[places], v[places]
    answer = varlen_attn(
        q,
        k,
        v,
        borders(lengths, q.device),
        borders(key_lengths, q.device),
        max(lengths),
        max(key_lengths),
        scale=scaling,
        # A query sees itself and the keys before it; queries after a prefix are the last of their keys.
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=q.shape[1] != k.shape[1],
    )
    assert isinstance(answer, Tensor)
    return answer[None]


@lru_cache(maxsize=8)
def borders(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Where each sequence begins and the last one ends, (sequences + 1,) int32: made once for all layers of a batch."""
    return _on(device, torch.tensor([0, *accumulate(lengths)], dtype=torch.int32))


@lru_cache(maxsize=8)
def keys_in_sight(lengths: tuple[int, ...], prefixes: Sequence[int], device: torch.device) -> Tensor:
    """The places of the keys of each sequence: the first `prefixes[i]` of the last one with 0 there, and its own."""
    pieces: list[Tensor] = []
    first = start = 0
    for length, prefix in zip(lengths, prefixes, strict=True):
        first = first if prefix else start
        pieces += [torch.arange(first, first + prefix), torch.arange(start, start + length)]
        start += length
    return _on(device, torch.cat(pieces))


def _on(device: torch.device, tensor: Tensor) -> Tensor:
    """On the device, without waiting for what it is doing."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
