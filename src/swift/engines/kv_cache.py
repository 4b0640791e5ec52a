"""Where keys and values live: slots of tensors, grouped in pools by how many tokens a slot holds.

Running slots stand first in their pool, so a decoding step reads them as one view without copying. Slots of finished
requests keep their tokens: the next turn of a chat finds its prefix there. Memory grows with use up to a budget.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

CPU_SHARE, GPU_SHARE = 0.3, 0.8
"""Share of the free memory the KV cache may grow to."""
SMALLEST = 256
"""Tokens a slot of the smallest pool holds; each further pool doubles it."""
FIRST_SLOTS = 4
KEPT_SLOTS = 128
"""A pool of so many slots uses the longest unused one again before it grows: memory stays flat under a steady load."""


@dataclass(frozen=True)
class LayerShape:
    """The key-value heads of one attention layer and the sizes of a key and a value."""

    heads: int
    key_dim: int
    value_dim: int


class Slot:
    """One place for one sequence. `tokens` are those whose keys and values it holds."""

    __slots__ = ("active", "adapter", "index", "last_used", "pool", "tokens")

    def __init__(self, pool: Pool, index: int):
        self.pool = pool
        self.index = index
        self.tokens: list[int] = []
        self.adapter: str | None = None
        self.active = False
        self.last_used = 0


class Pool:
    """Slots of equal capacity; `keys[layer]` and `values[layer]` have the shape (places, heads, capacity, dim).

    On a CPU `reserve` places are mapped at once. The system gives the memory when a place is first written to, so
    unused places cost nothing and more slots never mean a copy of all.
    """

    def __init__(
        self,
        capacity: int,
        layers: Sequence[LayerShape],
        dtype: torch.dtype,
        devices: Sequence[torch.device],
        reserve: int,
    ):
        self.capacity = capacity
        self.slots: list[Slot] = []
        self.active = 0
        self._reserve = reserve
        self._dtype = dtype
        places = [(s, d, reserve if d.type == "cpu" else 0) for s, d in zip(layers, devices, strict=True)]
        self.keys = [_places((n, s.heads, capacity, s.key_dim), dtype, d) for s, d, n in places]
        self.values = [_places((n, s.heads, capacity, s.value_dim), dtype, d) for s, d, n in places]

    def resize(self, slots: int) -> None:
        """Make room for `slots` slots, or give up idle ones at the end."""
        kept = min(slots, len(self.slots))
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                if slots < len(self.slots) or slots > len(old):
                    places = max(slots, self._reserve) if old.device.type == "cpu" else slots
                    tensors[layer] = new = _places((places, *old.shape[1:]), self._dtype, old.device)
                    new[:kept] = old[:kept]
        self.slots = self.slots[:kept] + [Slot(self, index) for index in range(kept, slots)]

    def swap(self, one: int, other: int) -> None:
        """Exchange two slots, contents and all."""
        if one == other:
            return
        a, b = self.slots[one], self.slots[other]
        length = max(len(a.tokens), len(b.tokens))
        for tensor in (*self.keys, *self.values):
            kept = tensor[one, :, :length].clone()
            tensor[one, :, :length] = tensor[other, :, :length]
            tensor[other, :, :length] = kept
        self.slots[one], self.slots[other] = b, a
        a.index, b.index = other, one

    def idle(self) -> list[Slot]:
        """Slots that no sequence uses."""
        return self.slots[self.active :]


class KVCache:
    """All pools, within `budget` bytes."""

    def __init__(
        self,
        layers: Sequence[LayerShape],
        dtype: torch.dtype,
        devices: Sequence[torch.device],
        *,
        budget: int,
        max_length: int,
    ):
        self.layers = tuple(layers)
        self.max_length = max_length
        self.budget = budget
        self.dtype = dtype
        self._devices = tuple(devices)
        self._token_bytes = sum(s.heads * (s.key_dim + s.value_dim) for s in layers) * dtype.itemsize
        self._pools: dict[int, Pool] = {}
        self._clock = 0

    def acquire(self, tokens: Sequence[int], adapter: str | None) -> Slot | None:
        """A slot for `tokens` whose own tokens are already a prefix of them, or None when there is no room now.

        The last token is never taken from a prefix: its logits have to be computed.
        """
        nearest, common = self._longest_prefix(tokens, adapter)
        capacity = self._capacity(len(tokens) + 1)
        self._clock += 1
        if nearest is not None and _continues(nearest, common, capacity):
            slot = nearest
        else:
            slot = self._spare(capacity, keep=nearest)
            if slot is None:
                return None
            slot.tokens = []
            if nearest is not None and nearest is not slot:
                _copy(nearest, slot, common)
        slot.tokens = list(tokens[:common])
        slot.adapter = adapter
        self._activate(slot)
        return slot

    def grow(self, slot: Slot, length: int) -> Slot | None:
        """The slot itself when it holds `length` tokens, or a larger one with its contents; None without room."""
        if length <= slot.pool.capacity:
            return slot
        larger = self._spare(self._capacity(length), keep=slot)
        if larger is None:
            return None
        larger.tokens = []
        _copy(slot, larger, len(slot.tokens))
        larger.tokens, larger.adapter = slot.tokens, slot.adapter
        self._activate(larger)
        slot.tokens = []
        self.release(slot)
        return larger

    def release(self, slot: Slot) -> None:
        """The slot's sequence is over; its tokens stay for others until the room is needed."""
        pool = slot.pool
        pool.active -= 1
        slot.active = False
        self._clock += 1
        slot.last_used = self._clock if slot.tokens else 0
        pool.swap(slot.index, pool.active)

    def forget(self, adapter: str) -> None:
        """Drop what idle slots hold under `adapter`, whose weights have changed."""
        for pool in self._pools.values():
            for slot in pool.idle():
                if slot.adapter == adapter:
                    slot.tokens, slot.last_used = [], 0

    @property
    def used(self) -> float:
        """Share of the budget that running sequences fill."""
        tokens = sum(len(slot.tokens) for pool in self._pools.values() for slot in pool.slots[: pool.active])
        return min(1.0, tokens * self._token_bytes / self.budget) if self.budget else 1.0

    def _capacity(self, length: int) -> int:
        capacity = SMALLEST
        while capacity < length:
            capacity *= 2
        return min(capacity, max(self.max_length, length))

    def _longest_prefix(self, tokens: Sequence[int], adapter: str | None) -> tuple[Slot | None, int]:
        best: Slot | None = None
        longest = 0
        for pool in self._pools.values():
            for slot in pool.slots:
                if slot.adapter == adapter and slot.tokens:
                    common = common_prefix(slot.tokens, tokens, len(tokens) - 1)
                    if common > longest:
                        best, longest = slot, common
        return best, longest

    def _spare(self, capacity: int, keep: Slot | None) -> Slot | None:
        """An idle slot of the pool: an empty one, a new one, or the longest unused one."""
        pool = self._pools.get(capacity)
        if pool is None:
            reserve = min(KEPT_SLOTS, self.budget // (capacity * self._token_bytes))
            pool = self._pools[capacity] = Pool(capacity, self.layers, self.dtype, self._devices, reserve)
        empty = next((slot for slot in pool.idle() if not slot.tokens), None)
        if empty is not None:
            return empty
        if len(pool.slots) < KEPT_SLOTS and self._extend(pool):
            return pool.slots[-1]
        idle = [slot for slot in pool.idle() if slot is not keep] or pool.idle()
        if idle:
            return min(idle, key=lambda slot: slot.last_used)
        if self._extend(pool) or (self._shrink_others(pool, keep) and self._extend(pool)):
            return pool.slots[-1]
        return None

    def _extend(self, pool: Pool) -> bool:
        """Double the pool within the budget; a single slot more when that is all there is room for."""
        room = (self.budget - self._allocated()) // (pool.capacity * self._token_bytes)
        more = min(max(FIRST_SLOTS if pool.capacity <= 4 * SMALLEST else 1, len(pool.slots)), room)
        if more < 1:
            return False
        pool.resize(len(pool.slots) + more)
        return True

    def _shrink_others(self, wanting: Pool, keep: Slot | None) -> bool:
        """Give up the idle slots of other pools, except `keep`. Whether that freed anything."""
        freed = False
        for pool in self._pools.values():
            kept = pool.active
            if keep is not None and keep.pool is pool and not keep.active:
                pool.swap(keep.index, kept)
                kept += 1
            if pool is not wanting and len(pool.slots) > kept:
                pool.resize(kept)
                freed = True
        return freed

    def _allocated(self) -> int:
        return sum(len(pool.slots) * pool.capacity for pool in self._pools.values()) * self._token_bytes

    def _activate(self, slot: Slot) -> None:
        slot.pool.swap(slot.index, slot.pool.active)
        slot.pool.active += 1
        slot.active = True


def _continues(slot: Slot, common: int, capacity: int) -> bool:
    """Whether the slot itself can go on: nobody uses it, it is large enough, and all that it holds is wanted."""
    return not slot.active and slot.pool.capacity >= capacity and common == len(slot.tokens)


def common_prefix(one: Sequence[int], other: Sequence[int], most: int) -> int:
    """How many of the first `most` tokens are equal."""
    most = min(len(one), len(other), most)
    for at in range(most):
        if one[at] != other[at]:
            return at
    return most


def _places(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros: what no sequence has written is masked, and must not be NaN for that."""
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or not size:
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, size), dtype=dtype).reshape(shape)


def _copy(source: Slot, target: Slot, length: int) -> None:
    for mine, theirs in ((target.pool.keys, source.pool.keys), (target.pool.values, source.pool.values)):
        for layer, tensor in enumerate(mine):
            tensor[target.index, :, :length] = theirs[layer][source.index, :, :length]


def free_memory(device: torch.device) -> int:
    """Bytes a KV cache may grow to."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * GPU_SHARE)
    return int(psutil.virtual_memory().available * CPU_SHARE)
