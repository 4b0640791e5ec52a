"""Forward passes for many sequences at once, over slots of a shared KV cache."""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swift.core.log import log
from swift.engines.adapter_pool import AdaptedModel
from swift.engines.kv_attention import NAME, Decode, NoStep, Prefill, Survey, decode_order
from swift.engines.kv_cache import KVCache, Slot
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
        self._device = _device(model.base)
        self._slots: dict[Sequence, Slot] = {}

    def admit(self, sequence: Sequence) -> int | None:
        slot = self._cache.acquire(sequence.tokens, sequence.request.adapter)
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
        single = [s for s, count in zip(sequences, counts, strict=True) if count == 1]
        longer = [(s, count) for s, count in zip(sequences, counts, strict=True) if count > 1]
        single.sort(key=lambda s: decode_order(self._slots[s]))
        for group in self._model.groups([s.request.adapter for s in single]) if single else []:
            self._decode([single[at] for at in group], logits)
        by_adapter: dict[str | None, list[tuple[Sequence, int]]] = {}
        for sequence, count in longer:
            by_adapter.setdefault(sequence.request.adapter, []).append((sequence, count))
        for adapter, group in by_adapter.items():
            self._prefill(adapter, group, logits)
        return torch.stack([logits[s] for s in sequences])

    def release(self, sequence: Sequence) -> None:
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
        output = self._model.forward(
            [s.request.adapter for s in sequences],
            input_ids=torch.tensor(tokens, device=self._device)[:, None],
            position_ids=torch.tensor([len(slot.tokens) for slot in slots], device=self._device)[:, None],
            use_cache=False,
            slots_step=Decode(slots, self._cache.dtype, self._device),
        )
        for slot, token in zip(slots, tokens, strict=True):
            slot.tokens.append(token)
        logits.update(zip(sequences, output.logits[:, -1], strict=True))

    def _prefill(self, adapter: str | None, group: list[tuple[Sequence, int]], logits: dict[Sequence, Tensor]) -> None:
        slots = [self._slots[s] for s, _ in group]
        stretches = [
            s.tokens[len(slot.tokens) : len(slot.tokens) + n] for (s, n), slot in zip(group, slots, strict=True)
        ]
        positions = [at for slot, new in zip(slots, stretches, strict=True) for at in _positions(slot, new)]
        ends = torch.tensor([len(new) for new in stretches]).cumsum(0) - 1
        output = self._model.forward(
            [adapter],
            input_ids=torch.tensor([[token for new in stretches for token in new]], device=self._device),
            position_ids=torch.tensor([positions], device=self._device),
            use_cache=False,
            logits_to_keep=ends.to(self._device),
            slots_step=Prefill(slots, [len(new) for new in stretches]),
        )
        for slot, new in zip(slots, stretches, strict=True):
            slot.tokens.extend(new)
        logits.update(zip((s for s, _ in group), output.logits[0], strict=True))


def _positions(slot: Slot, new: list[int]) -> range:
    return range(len(slot.tokens), len(slot.tokens) + len(new))


CACHES = ("past_key_values", "cache_params")
"""What models call the cache that they return and take."""


class SeparateRunner:
    """The runner for every other model: each sequence has a cache object of the model's own kind and runs by itself."""

    splits_prompts = False  # Recurrent layers take a stretch of tokens only at the start.

    def __init__(self, model: AdaptedModel, places: int):
        self._model = model
        self._places = places
        self._device = _device(model.base)
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
        logits = []
        for sequence, count in zip(sequences, counts, strict=True):
            cache, done = self._caches[sequence]
            output = self._model.forward(
                [sequence.request.adapter],
                input_ids=torch.tensor([sequence.tokens[done : done + count]], device=self._device),
                position_ids=torch.arange(done, done + count, device=self._device)[None],
                use_cache=True,
                logits_to_keep=1,
                **cache,
            )
            kept = {name: output[name] for name in CACHES if name in output}
            self._caches[sequence] = (kept, done + count)
            logits.append(output.logits[0, -1])
        return torch.stack(logits)

    def release(self, sequence: Sequence) -> None:
        self._caches.pop(sequence, None)

    def forget(self, adapter: str) -> None:
        """Nothing is kept."""

    @property
    def used(self) -> float:
        """Share of the places taken; the memory they take is the model's business."""
        return len(self._caches) / self._places


PROBE = (11, 9, 4)
"""Tokens of the short text on which the two ways to run a model are compared: two stretches, then single tokens."""
MOVING_ROPE = ("dynamic", "longrope")
"""Rotary embeddings that depend on the longest slot of a batch, so slots would change each other's answers."""
PLAIN_LAYERS = {"full_attention", "sliding_attention"}
TOLERANCE = {torch.float32: 1e-3}
"""Largest difference of a logit, as a share of the largest logit; for half precision HALF_TOLERANCE."""
HALF_TOLERANCE = 0.05


@torch.inference_mode()
def choose_runner(model: AdaptedModel, *, budget: int, max_length: int, places: int) -> Runner:
    """A SlotRunner when running on slots gives what the model itself gives, else a SeparateRunner.

    It is tried, not guessed: a short text goes through the model as it is and through slots, and the logits have to
    agree. `budget` is in bytes; `places` is how many sequences a SeparateRunner takes at once.
    """
    base = model.base
    config = base.config.get_text_config().to_dict()
    moving = any(kind in MOVING_ROPE for kind in _rope_types(config.get("rope_parameters") or {}))
    if not moving and set(config.get("layer_types") or ()) <= PLAIN_LAYERS:
        tokens = torch.arange(sum(PROBE)) * 37 % config["vocab_size"]
        expected = base(input_ids=tokens.to(_device(base))[None], use_cache=True).logits[0]
        base.set_attn_implementation(NAME)
        survey = _survey(base, tokens)
        if survey is not None:
            trial = _cache(survey, budget=2**62, max_length=max_length)
            if _agree(base, trial, tokens.tolist(), expected):
                return SlotRunner(model, _cache(survey, budget=budget, max_length=max_length))
        base.set_attn_implementation(model.own_attention)
    log.info("this model's layers need caches of their own kind: the requests of a step run one after the other")
    return SeparateRunner(model, places)


def _survey(model: PreTrainedModel, tokens: Tensor) -> Survey | None:
    """What every layer stores; None when some layer does not attend through a step."""
    survey = Survey()
    try:
        model(input_ids=tokens.to(_device(model))[None], use_cache=False, slots_step=survey)
    except (NoStep, TypeError):
        return None  # A forward pass without **kwargs refuses the step by a TypeError.
    return survey if survey.layers and sorted(survey.layers) == list(range(len(survey.layers))) else None


def _cache(survey: Survey, *, budget: int, max_length: int) -> KVCache:
    layers = [survey.layers[number] for number in sorted(survey.layers)]
    devices = [survey.devices[number] for number in sorted(survey.layers)]
    assert survey.dtype is not None
    return KVCache(layers, survey.dtype, devices, budget=budget, max_length=max_length)


def _rope_types(rope: dict[str, Any]) -> list[str]:
    """The kinds of rotary embedding in a config, which has one or one for each kind of layer."""
    kinds = (
        [rope.get("rope_type")]
        if "rope_type" in rope
        else [v.get("rope_type") for v in rope.values() if isinstance(v, dict)]
    )
    return [kind for kind in kinds if kind]


def _agree(model: PreTrainedModel, cache: KVCache, tokens: list[int], expected: Tensor) -> bool:
    """Whether two stretches and single tokens of `tokens`, beside another slot, give the `expected` logits."""
    device = _device(model)
    other = cache.acquire(tokens[::-1], None)
    slot = cache.acquire(tokens, None)
    assert slot is not None and other is not None
    first, second, _ = PROBE
    for start, stop in ((0, first), (first, first + second)):
        stretch = [(slot, tokens[start:stop]), (other, tokens[::-1][start:stop])]
        logits = model(
            input_ids=torch.tensor([[token for _, part in stretch for token in part]], device=device),
            position_ids=torch.tensor([[*range(start, stop)] * 2], device=device),
            use_cache=False,
            logits_to_keep=torch.tensor([stop - start - 1], device=device),
            slots_step=Prefill([each for each, _ in stretch], [len(part) for _, part in stretch]),
        ).logits[0]
        if logits.shape[0] != 1 or not _near(logits[0], expected[stop - 1]):
            return False
        for each, part in stretch:
            each.tokens.extend(part)
    cache.release(other)
    for at in range(first + second, len(tokens)):
        logits = model(
            input_ids=torch.tensor([[tokens[at]]], device=device),
            position_ids=torch.tensor([[at]], device=device),
            use_cache=False,
            slots_step=Decode([slot], cache.dtype, device),
        ).logits[0, -1]
        if not _near(logits, expected[at]):
            return False
        slot.tokens.append(tokens[at])
    return True


def _near(one: Tensor, other: Tensor) -> bool:
    tolerance = TOLERANCE.get(one.dtype, HALF_TOLERANCE)
    return float((one - other).abs().max()) <= tolerance * float(other.abs().max())


def _device(model: PreTrainedModel) -> torch.device:
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return weight.device
