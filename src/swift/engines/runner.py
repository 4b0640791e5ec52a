"""Forward passes for many sequences: in one batch over slots of a shared KV cache, or one after the other.

runner_probe.py finds out at the start which of the three ways a model can go.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence as Many
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swift.engines.adapter_pool import AdaptedModel
from swift.engines.dynamic_rope import DynamicRope
from swift.engines.image_prompt import ImagePrompt
from swift.engines.kv_attention import Decode, Prefill, Rows, decode_order
from swift.engines.kv_cache import KVCache, Slot
from swift.engines.plain_decoder import ROWS
from swift.engines.sequence import Sequence


class Runner(Protocol):
    """Computes the next-token logits of sequences. It knows how far each of them is."""

    splits_prompts: bool
    """Whether a prompt may be computed in several stretches."""

    def admit(self, sequence: Sequence) -> int | None:
        """Give the sequence a place: how many of its tokens are computed already, or None when there is no room."""
        ...

    def reserve(self, sequence: Sequence) -> bool:
        """Make room for one token more. False when there is none."""
        ...

    def computed(self, sequence: Sequence) -> int:
        """How many of its tokens are computed."""
        ...

    def extend(self, sequences: Many[Sequence], counts: Many[int]) -> Tensor:
        """Compute the next counts[i] tokens of each sequence: logits after the last one, (sequences, vocabulary)."""
        ...

    def release(self, sequence: Sequence) -> None:
        """The sequence needs its place no longer."""
        ...

    def forget(self, adapter: str) -> None:
        """An adapter of this name has new weights."""
        ...

    @property
    def used(self) -> float:
        """Share of the cache memory in use."""
        ...


class SlotRunner:
    """For models whose attention can be handed a step (see kv_attention.py). One batch whatever the lengths."""

    splits_prompts = True

    def __init__(self, model: AdaptedModel, cache: KVCache):
        self._model = model
        self._cache = cache
        self._device = device_of(model.base)
        self._slots: dict[Sequence, Slot] = {}
        self._embedded: dict[Sequence, Tensor] = {}
        """What the decoder is given for prompts with images of which a part is computed."""

    def admit(self, sequence: Sequence) -> int | None:
        slot = self._cache.acquire(sequence.keys, sequence.request.adapter)
        if slot is None:
            return None
        self._slots[sequence] = slot
        return len(slot.tokens)

    def reserve(self, sequence: Sequence) -> bool:
        slot = self._cache.grow(self._slots[sequence], len(sequence.tokens))
        if slot is None:
            return False
        self._slots[sequence] = slot
        return True

    def computed(self, sequence: Sequence) -> int:
        return len(self._slots[sequence].tokens)

    def extend(self, sequences: Many[Sequence], counts: Many[int]) -> Tensor:
        logits: dict[Sequence, Tensor] = {}
        single: list[Sequence] = []
        by_adapter: dict[str | None, list[tuple[Sequence, int]]] = {}
        for sequence, count in zip(sequences, counts, strict=True):
            if sequence.images is not None and self.computed(sequence) < len(sequence.request.prompt_ids):
                self._prefill_with_images(sequence, sequence.images, count, logits)
            elif count == 1:
                single.append(sequence)
            else:
                by_adapter.setdefault(sequence.request.adapter, []).append((sequence, count))
        single.sort(key=lambda s: decode_order(self._slots[s]))
        for group in self._model.groups([s.request.adapter for s in single]) if single else []:
            self._decode([single[at] for at in group], logits)
        for adapter, group in by_adapter.items():
            self._prefill(adapter, group, logits)
        return logits[sequences[0]][None] if len(sequences) == 1 else torch.stack([logits[s] for s in sequences])

    def extend_by(self, sequence: Sequence, tokens: Many[int]) -> Tensor:
        """Compute these tokens as if they were the sequence's next: logits after each of them, (tokens, vocabulary).

        With guesses among them they are no more than there is `room` for; `cut` gives up those that were wrong.
        """
        slot, rows = self._slots[sequence], len(tokens)
        first = len(slot.tokens) + sequence.shift
        logits = self._model.step(
            [sequence.request.adapter] * rows,
            Rows(slot, rows),
            torch.tensor(tokens, device=self._device)[:, None],
            torch.arange(first, first + rows, device=self._device)[:, None],
        )
        slot.tokens.extend(tokens)
        return logits[:, -1]

    def room(self, sequence: Sequence) -> int:
        """How many tokens `extend_by` takes at once with the very logits, bit for bit, of one after the other."""
        plain = self._model.plain(sequence.request.adapter)
        if plain is None or not plain.rows_are_alone:
            return 1
        slot = self._slots[sequence]
        return min(ROWS, slot.pool.capacity - len(slot.tokens))

    def cut(self, sequence: Sequence) -> None:
        """Keep of the computed tokens those before the sequence's last one."""
        slot = self._slots.get(sequence)
        if slot is not None:
            del slot.tokens[len(sequence.tokens) - 1 :]

    def release(self, sequence: Sequence) -> None:
        self._embedded.pop(sequence, None)
        slot = self._slots.pop(sequence, None)
        if slot is not None:
            self._cache.release(slot)

    def forget(self, adapter: str) -> None:
        self._cache.forget(adapter)

    @property
    def used(self) -> float:
        return self._cache.used

    def _decode(self, sequences: list[Sequence], logits: dict[Sequence, Tensor]) -> None:
        slots = [self._slots[s] for s in sequences]
        tokens = [s.tokens[len(slot.tokens)] for s, slot in zip(sequences, slots, strict=True)]
        if len(sequences) == 1:
            logits[sequences[0]] = self.extend_by(sequences[0], tokens)[0]
            return
        rows = self._model.step(
            [s.request.adapter for s in sequences],
            Decode(slots, self._cache.dtype, self._device),
            torch.tensor(tokens, device=self._device)[:, None],
            torch.tensor(
                [len(slot.tokens) + s.shift for s, slot in zip(sequences, slots, strict=True)], device=self._device
            )[:, None],
        )
        for slot, token in zip(slots, tokens, strict=True):
            slot.tokens.append(token)
        logits.update(zip(sequences, rows[:, -1], strict=True))

    def _prefill(self, adapter: str | None, group: list[tuple[Sequence, int]], logits: dict[Sequence, Tensor]) -> None:
        slots = [self._slots[s] for s, _ in group]
        stretches = [
            s.tokens[len(slot.tokens) : len(slot.tokens) + n] for (s, n), slot in zip(group, slots, strict=True)
        ]
        positions = [
            at for (s, _), slot, new in zip(group, slots, stretches, strict=True) for at in _positions(s, slot, new)
        ]
        ends = torch.tensor([len(new) for new in stretches]).cumsum(0) - 1
        rows = self._model.step(
            [adapter],
            Prefill(slots, [len(new) for new in stretches]),
            torch.tensor([[token for new in stretches for token in new]], device=self._device),
            torch.tensor([positions], device=self._device),
            ends.to(self._device),
        )
        for slot, new in zip(slots, stretches, strict=True):
            slot.tokens.extend(new)
        logits.update(zip((s for s, _ in group), rows[0], strict=True))

    def _prefill_with_images(
        self, sequence: Sequence, images: ImagePrompt, count: int, logits: dict[Sequence, Tensor]
    ) -> None:
        """The next `count` tokens of a sequence in whose prompt images stand, in a batch of one."""
        slot, adapter = self._slots[sequence], sequence.request.adapter
        start, stop = len(slot.tokens), len(slot.tokens) + count
        if sequence not in self._embedded:
            self._embedded[sequence] = self._model.embedded(adapter, sequence.tokens, images)
        rows = self._model.step(
            [adapter],
            Prefill([slot], [count]),
            self._embedded[sequence][:, start:stop],
            images.positions(start, stop).to(self._device),
            torch.tensor([count - 1], device=self._device),
            embedded=True,
        )
        slot.tokens.extend(sequence.keys[start:stop])
        if stop >= len(sequence.request.prompt_ids):
            del self._embedded[sequence]
        logits[sequence] = rows[0, 0]


def _positions(sequence: Sequence, slot: Slot, new: list[int]) -> range:
    first = len(slot.tokens) + sequence.shift
    return range(first, first + len(new))


CACHES = ("past_key_values", "cache_params", "state")
"""What models call the cache that they return and take."""


class OwnCacheRunner:
    """For models with another kind of cache: each sequence has a cache object of the model's own and runs by itself.

    `first_position` is 0, but for the probe, which puts a short text where a long one would end.
    """

    splits_prompts = False  # Recurrent layers take a stretch of tokens only at the start.

    def __init__(self, model: AdaptedModel, places: int, *, first_position: int = 0):
        self._model = model
        self._places = places
        self._first = first_position
        self._rope = DynamicRope(model.base)
        self._device = device_of(model.base)
        self._caches: dict[Sequence, tuple[dict[str, Any], int]] = {}

    def admit(self, sequence: Sequence) -> int | None:
        if len(self._caches) >= self._places:
            return None
        self._caches[sequence] = ({}, 0)
        return 0

    def reserve(self, sequence: Sequence) -> bool:
        return True

    def computed(self, sequence: Sequence) -> int:
        return self._caches[sequence][1]

    def extend(self, sequences: Many[Sequence], counts: Many[int]) -> Tensor:
        return torch.stack([self._extend(s, count) for s, count in zip(sequences, counts, strict=True)])

    def release(self, sequence: Sequence) -> None:
        self._caches.pop(sequence, None)

    def forget(self, adapter: str) -> None:
        """Nothing is kept."""

    @property
    def used(self) -> float:
        """Share of the places taken; the memory they take is the model's business."""
        return len(self._caches) / self._places

    def _extend(self, sequence: Sequence, count: int) -> Tensor:
        cache, start = self._caches[sequence]
        stop = start + count
        if self._rope.switches(self._first + start, self._first + stop):
            cache, start = {}, 0  # its keys were turned by the other set of factors
        self._rope.settle(self._first + stop)
        places = torch.arange(self._first + start, self._first + stop, device=self._device)[None]
        if sequence.images is not None:
            places = sequence.images.positions(start, stop).to(self._device)
        output = self._model.forward(
            [sequence.request.adapter],
            input_ids=torch.tensor([sequence.tokens[start:stop]], device=self._device),
            position_ids=places,
            use_cache=True,
            logits_to_keep=1,
            **_shown(sequence, self._model, start, stop),
            **cache,
        )
        self._caches[sequence] = ({name: output[name] for name in CACHES if name in output}, stop)
        return output.logits[0, -1]


class RecomputeRunner:
    """For models whose caches are of no use: every token costs a forward pass over the whole text before it."""

    splits_prompts = False

    def __init__(self, model: AdaptedModel, places: int):
        self._model = model
        self._places = places
        self._rope = DynamicRope(model.base)
        self._device = device_of(model.base)
        self._computed: dict[Sequence, int] = {}
        can_keep = "logits_to_keep" in inspect.signature(model.base.forward).parameters
        self._last_only = {"logits_to_keep": 1} if can_keep else {}

    def admit(self, sequence: Sequence) -> int | None:
        if len(self._computed) >= self._places:
            return None
        self._computed[sequence] = 0
        return 0

    def reserve(self, sequence: Sequence) -> bool:
        return True

    def computed(self, sequence: Sequence) -> int:
        return self._computed[sequence]

    def extend(self, sequences: Many[Sequence], counts: Many[int]) -> Tensor:
        logits = []
        for sequence, count in zip(sequences, counts, strict=True):
            stop = self._computed[sequence] + count
            self._rope.settle(stop)
            output = self._model.forward(
                [sequence.request.adapter],
                input_ids=torch.tensor([sequence.tokens[:stop]], device=self._device),
                use_cache=False,
                **_placed(sequence, stop, self._device),
                **_shown(sequence, self._model, 0, stop),
                **self._last_only,
            )
            self._computed[sequence] = stop
            logits.append(output.logits[0, -1])
        return torch.stack(logits)

    def release(self, sequence: Sequence) -> None:
        self._computed.pop(sequence, None)

    def forget(self, adapter: str) -> None:
        """Nothing is kept."""

    @property
    def used(self) -> float:
        """Share of the places taken."""
        return len(self._computed) / self._places


def _shown(sequence: Sequence, model: AdaptedModel, start: int, stop: int) -> dict[str, Tensor]:
    """What a pass over the tokens from `start` to `stop` is given of the images, which the first pass sees."""
    if sequence.images is None:
        return {}
    device = device_of(model.base)
    if start:
        return sequence.images.looks(device, start, stop)
    return sequence.images.moved(device, model.base.dtype, stop)


def _placed(sequence: Sequence, length: int, device: torch.device) -> dict[str, Tensor]:
    return {} if sequence.images is None else {"position_ids": sequence.images.positions(0, length).to(device)}


def embedding_of(model: PreTrainedModel) -> Tensor:
    """The table of the tokens that the model reads, (vocabulary, hidden size)."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return weight


def device_of(model: PreTrainedModel) -> torch.device:
    """Where the tokens of a batch have to be."""
    return embedding_of(model).device
