"""Attention of a running batch over the slots of a `KVCache`, registered as one of transformers' attention functions.

The model runs without a cache of its own; each layer's attention hands its new keys and values to the step under way
(`Decode`: one token of each slot; `Rows`: a few tokens of one slot; `Prefill`: stretches of several slots, one after
the other), which stores them in the slots and attends over what the slots hold. No padding, and no mask is made by the
model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from swift.engines.kv_cache import LayerShape, Pool, Slot

NAME = "swift_slots"


class Step(Protocol):
    """A forward pass under way."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, how: How) -> Tensor:
        """Store key and value (B, heads, T, dim), and attend; the answer is (B, T, query heads, value dim)."""
        ...


@dataclass(frozen=True)
class How:
    """What a layer's attention is besides plain causal attention."""

    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None


class NoStep(Exception):
    """The model did not pass the step on to its attention layers, so it cannot run on slots."""


def slots_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    slots_step: Step | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface.

    Raises NoStep outside of a step, or for a model that biases its scores or hides keys by a mask of its own making:
    what such a mask does to a longer text than the one that is tried cannot be known.
    """
    if slots_step is None or attention_mask is not None or kwargs.get("position_bias") is not None:
        raise NoStep(type(module).__name__)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    how = How(scale, sliding_window, softcap, s_aux)
    return slots_step.attend(module.layer_idx, query, key, value, how), None  # type: ignore[arg-type]


AttentionInterface.register(NAME, slots_attention)
AttentionMaskInterface.register(NAME, lambda *_, **__: None)


class Survey:
    """A step that stores nothing and notes what each layer would store, and the window it sees."""

    def __init__(self) -> None:
        self._shapes: dict[int, LayerShape] = {}
        self._devices: dict[int, torch.device] = {}
        self._hows: dict[int, How] = {}
        self.dtype = torch.float32

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, how: How) -> Tensor:
        """Attention within the stretch alone, for there is no past."""
        self._shapes[layer] = LayerShape(key.shape[1], key.shape[3], value.shape[3])
        self._devices[layer] = key.device
        self._hows[layer] = how
        self.dtype = key.dtype
        return _attend(query, key, value, None, how, causal=True).transpose(1, 2).contiguous()

    @property
    def is_whole(self) -> bool:
        """Whether the layers that attended are all that there are up to the last of them."""
        return bool(self._shapes) and sorted(self._shapes) == list(range(len(self._shapes)))

    @property
    def shapes(self) -> list[LayerShape]:
        """What every layer stores, in their order."""
        return [self._shapes[layer] for layer in sorted(self._shapes)]

    @property
    def devices(self) -> list[torch.device]:
        """The device of every layer, in their order."""
        return [self._devices[layer] for layer in sorted(self._devices)]

    @property
    def hows(self) -> list[How]:
        """What attention is in every layer, in their order."""
        return [self._hows[layer] for layer in sorted(self._hows)]

    def windows_fit(self, layer_types: Sequence[str], window: int | None) -> bool:
        """Whether layers handed on the windows of the configuration: a window that is part of the mask goes unseen."""
        kinds = layer_types or ["sliding_attention" if window else "full_attention"] * len(self._hows)
        sliding = [kind == "sliding_attention" for kind in kinds]
        return sliding == [how.window is not None for how in self.hows]


@dataclass
class _Part:
    """The slots of one pool in a decoding step: `span` of the batch."""

    pool: Pool
    span: slice
    index: Tensor
    lengths: Tensor
    longest: int
    view: bool
    biases: dict[int | None, Tensor] = field(default_factory=dict)


class Decode:
    """One new token for each of `slots`, which stand sorted by `decode_order`."""

    def __init__(self, slots: Sequence[Slot], dtype: torch.dtype, device: torch.device):
        self._dtype = dtype
        self._parts: list[_Part] = []
        start = 0
        while start < len(slots):
            pool, stop = slots[start].pool, start
            while stop < len(slots) and slots[stop].pool is pool:
                stop += 1
            indices = [slot.index for slot in slots[start:stop]]
            lengths = [len(slot.tokens) for slot in slots[start:stop]]
            self._parts.append(
                _Part(
                    pool,
                    slice(start, stop),
                    torch.tensor(indices, device=device),
                    torch.tensor(lengths, device=device),
                    max(lengths) + 1,
                    view=indices == list(range(len(indices))),
                )
            )
            start = stop

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, how: How) -> Tensor:
        """Here T is 1."""
        answers = [
            self._attend_part(part, layer, query[part.span], key[part.span], value[part.span], how)
            for part in self._parts
        ]
        return answers[0] if len(answers) == 1 else torch.cat(answers)

    def _attend_part(self, part: _Part, layer: int, query: Tensor, key: Tensor, value: Tensor, how: How) -> Tensor:
        keys, values = part.pool.keys[layer], part.pool.values[layer]
        index, lengths = part.index.to(key.device), part.lengths.to(key.device)  # layers may be spread over devices
        keys[index, :, lengths] = key[:, :, 0]
        values[index, :, lengths] = value[:, :, 0]
        count = key.shape[0]
        if part.view:
            keys, values = keys[:count, :, : part.longest], values[:count, :, : part.longest]
        else:
            keys, values = keys[index, :, : part.longest], values[index, :, : part.longest]
        # The query heads of one key head go where query positions usually are: no key is repeated in memory.
        grouped = query.reshape(count, keys.shape[1], -1, query.shape[-1])
        answer = _attend(grouped, keys, values, self._bias(part, how.window).to(key.device), how, causal=False)
        return answer.reshape(count, 1, query.shape[1], -1)

    def _bias(self, part: _Part, window: int | None) -> Tensor:
        """0 where a slot has a token in sight and -inf elsewhere, (slots, 1, 1, longest)."""
        if window not in part.biases:
            positions = torch.arange(part.longest, device=part.lengths.device)
            seen = positions <= part.lengths[:, None]
            if window is not None:
                seen &= positions > part.lengths[:, None] - window
            bias = torch.zeros(seen.shape, dtype=self._dtype, device=seen.device)
            part.biases[window] = bias.masked_fill_(~seen, -math.inf)[:, None, None]
        return part.biases[window]


def decode_order(slot: Slot) -> tuple[int, int]:
    """The order in which `Decode` takes slots: pool by pool, as they stand in memory."""
    return slot.pool.capacity, slot.index


class Rows:
    """The next `count` tokens of one slot, each a row of the batch, as if the slot were there `count` times.

    Each row attends by itself: what it gives does not depend on how many come with it.
    """

    def __init__(self, slot: Slot, count: int):
        self._slot = slot
        self._past, self._count = len(slot.tokens), count

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, how: How) -> Tensor:
        """Here B is `count` and T is 1."""
        pool, index = self._slot.pool, self._slot.index
        keys, values = pool.keys[layer][index], pool.values[layer][index]
        new = slice(self._past, self._past + self._count)
        keys[:, new].copy_(key[:, :, 0].transpose(0, 1))
        values[:, new].copy_(value[:, :, 0].transpose(0, 1))
        # The query heads of one key head go where query positions usually are: no key is repeated in memory.
        grouped = query.reshape(self._count, 1, keys.shape[0], -1, query.shape[-1])
        answers = []
        for row in range(self._count):
            end = self._past + row + 1
            sight = slice(0 if how.window is None else max(0, end - how.window), end)
            answers.append(_attend(grouped[row], keys[None, :, sight], values[None, :, sight], None, how, causal=False))
        joined = answers[0] if len(answers) == 1 else torch.cat(answers)
        return joined.reshape(self._count, 1, query.shape[1], -1)


class Prefill:
    """Stretches of new tokens, `counts[i]` for `slots[i]`, laid one after the other in a batch of one."""

    def __init__(self, slots: Sequence[Slot], counts: Sequence[int]):
        self._stretches: list[tuple[Slot, int, slice]] = []
        start = 0
        for slot, count in zip(slots, counts, strict=True):
            self._stretches.append((slot, len(slot.tokens), slice(start, start + count)))
            start += count
        self._masks: dict[tuple[int, int | None], Tensor | None] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, how: How) -> Tensor:
        """Here B is 1."""
        answers = []
        for number, (slot, past, span) in enumerate(self._stretches):
            total = past + span.stop - span.start
            keys, values = slot.pool.keys[layer][slot.index], slot.pool.values[layer][slot.index]
            keys[:, past:total] = key[0, :, span]
            values[:, past:total] = value[0, :, span]
            mask = self._mask(number, past, total, how.window, query.device)
            if past == 0:
                mine_k, mine_v = key[:, :, span], value[:, :, span]
            else:
                mine_k, mine_v = keys[None, :, :total], values[None, :, :total]
            answers.append(_attend(query[:, :, span], mine_k, mine_v, mask, how, causal=mask is None))
        joined = answers[0] if len(answers) == 1 else torch.cat(answers, dim=2)
        return joined.transpose(1, 2).contiguous()  # some models take a view of it

    def _mask(self, number: int, past: int, total: int, window: int | None, device: torch.device) -> Tensor | None:
        """True where a query sees a key; None for plain causal attention from the start."""
        if past == 0 and (window is None or total <= window):
            return None
        if (number, window) not in self._masks:
            queries = torch.arange(past, total, device=device)[:, None]
            keys = torch.arange(total, device=device)
            seen = keys <= queries
            self._masks[number, window] = seen if window is None else seen & (keys > queries - window)
        return self._masks[number, window]


def _attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, how: How, *, causal: bool) -> Tensor:
    """Softmax attention; key heads are shared by runs of query heads where there are fewer of them."""
    if how.softcap is None and how.sinks is None:
        return F.scaled_dot_product_attention(
            query,
            keys,
            values,
            attn_mask=mask,
            is_causal=causal,
            scale=how.scale,
            enable_gqa=query.shape[1] != keys.shape[1],
        )
    shared = query.shape[1] // keys.shape[1]
    scores = query @ keys.repeat_interleave(shared, 1).transpose(2, 3) * how.scale
    if how.softcap is not None:
        scores = torch.tanh(scores / how.softcap) * how.softcap
    if causal:
        length = scores.shape[-1]
        mask = torch.ones(length, length, dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    if how.sinks is not None:
        # One more score for each head that takes part in the softmax and brings no value.
        sinks = how.sinks.reshape(1, query.shape[1], -1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)
        scores = torch.cat([scores, sinks.to(scores.dtype)], dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(values.dtype)
    return weights[..., : keys.shape[2]] @ values.repeat_interleave(shared, 1)
