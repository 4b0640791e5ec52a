"""How a model can be stepped is tried, not guessed: a short text goes every way, and the logits have to agree.

The runners that are tried are those that will be used. The first that agrees with a forward pass over the whole text is
taken; such a pass for every token is the last resort, and right by definition.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swift.catalog.entries import MediaText
from swift.core.errors import SwiftError
from swift.core.log import log, once
from swift.engines.adapter_pool import AdaptedModel
from swift.engines.base import Request, SamplingParams
from swift.engines.dynamic_rope import DynamicRope
from swift.engines.encoder_decoder import EncoderDecoderRunner
from swift.engines.image_prompt import ImagePrompt, image_prompt
from swift.engines.kv_attention import NAME
from swift.engines.kv_cache import KVCache
from swift.engines.plain_decoder import OwnStep
from swift.engines.runner import OwnCacheRunner, RecomputeRunner, Runner, SlotRunner, device_of, embedding_of
from swift.engines.sequence import Sequence
from swift.models.families import MediaProcessor
from swift.models.families.samples import sample

STRETCHES = (11, 9)
"""Tokens of the text's first two stretches, as a long prompt is computed; SINGLES follow one by one, as answers are."""
SINGLES = 4
"""As many as the window of a convolution has tokens, of which a cache of the model's own kind may keep the last."""
SLOT_SINGLES = 2
"""One beside another text, and one alone: slots keep keys and values only, so that all singles go the same way."""
PLAIN_LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers that slots can serve; where another kind differs may lie far behind the end of a short text."""
TOLERANCE = {torch.float32: 1e-3}
"""Largest difference of a logit, as a share of the largest logit; for half precision HALF_TOLERANCE."""
HALF_TOLERANCE = 0.05


class Reference:
    """The text of the trial, and the logits of passes over its beginnings without any cache."""

    def __init__(self, model: PreTrainedModel, max_length: int):
        self._model = model
        self._device = device_of(model)
        self.stretches = STRETCHES
        size = min(sum(STRETCHES) + SINGLES, max_length)
        vocabulary = len(embedding_of(model))
        self.tokens = [number * 37 % vocabulary for number in range(size)]
        rope = DynamicRope(model)
        # Where a longer text takes other factors, the text lies across that border.
        border = next(iter(rope.borders), None)
        self.first_position = 0 if border is None else max(0, border + 2 - size)
        self._whole = None if rope else self._logits(size)

    def after(self, count: int) -> Tensor:
        """Logits after the first `count` tokens, (vocabulary,)."""
        logits = self._logits(count) if self._whole is None else self._whole
        return logits[count - 1]

    def _logits(self, count: int) -> Tensor:
        positions = torch.arange(self.first_position, self.first_position + count, device=self._device)[None]
        moved = {"position_ids": positions} if self.first_position else {}
        tokens = torch.tensor([self.tokens[:count]], device=self._device)
        return self._model(input_ids=tokens, use_cache=False, **moved).logits[0]


class ImageReference:
    """A text with an image in it, and the logits of one pass over it."""

    first_position = 0

    def __init__(self, model: PreTrainedModel, images: MediaProcessor):
        text = Reference(model, sum(STRETCHES) + SINGLES).tokens
        media = sample(images.kinds)
        before = STRETCHES[0] // 2
        ((kind, (written,)),) = images.written(media, MediaText()).items()
        token, number = images.family.tokens[kind]
        count = written.count(token)
        prompt = [*text[:before], *[number] * count, *text[before:-SINGLES]]
        self.tokens = [*prompt, *text[-SINGLES:]]
        self.images = image_prompt(images, model, prompt, media)
        cut = before + count // 2
        self.stretches = (cut, len(prompt) - cut)
        device, size = device_of(model), len(self.tokens)
        self._logits: Tensor = model(
            input_ids=torch.tensor([self.tokens], device=device),
            position_ids=self.images.positions(0, size).to(device),
            use_cache=False,
            **self.images.moved(device, model.dtype, size),
        ).logits[0]

    def after(self, count: int) -> Tensor:
        """Logits after the first `count` tokens, (vocabulary,)."""
        return self._logits[count - 1]


@torch.inference_mode()
def choose_runner(
    model: AdaptedModel, *, budget: int, max_length: int, places: int, images: MediaProcessor | None = None
) -> Runner:
    """The fastest runner whose answers are the model's own. Says which, and raises SwiftError for a broken model.

    `budget` is the memory of a KV cache in bytes; `places` is how many sequences run at once without one; `images` is
    for a model that takes them, and a text with an image is tried too.
    """
    if images is not None and images.family.opening:
        _require_numbers(model.base(input_ids=torch.tensor([[0, 1, 2]], device=device_of(model.base))).logits)
        once("requests of a step run one after the other: an encoder reads their prompts", level=logging.INFO)
        return EncoderDecoderRunner(model, places, images.family.opening)
    reference = Reference(model.base, max_length)
    _require_numbers(reference.after(len(reference.tokens)))
    if images is not None and not images.family.embedded:
        once("requests of a step run one after the other: their images are not embeddings alone", level=logging.INFO)
        return OwnCacheRunner(model, places)
    seen = None if images is None else ImageReference(model.base, images)
    cache = _slots(model, reference, seen, budget=budget, max_length=max_length)
    if cache is not None:
        once("requests run in one batch, over slots of a shared KV cache", level=logging.INFO)
        return SlotRunner(model, cache)
    if all(
        _agrees(
            lambda each=each: OwnCacheRunner(model, 2, first_position=each.first_position), each, (sum(each.stretches),)
        )
        for each in (reference, seen)
        if each is not None
    ):
        once(
            "requests of a step run one after the other, each with a cache of the model's own kind", level=logging.INFO
        )
        return OwnCacheRunner(model, places)
    log.warning("the model's cache does not give its own answers: every token computes the whole text again, slowly")
    return RecomputeRunner(model, places)


def _require_numbers(logits: Tensor) -> None:
    """Raise SwiftError for logits of a broken model."""
    if logits.isnan().any():
        raise SwiftError(
            "the model's logits are not numbers (NaN)",
            why="a short text was tried: the weights hold NaN, or their type is too narrow for them",
            next="check the weights; --dtype bf16 or fp32 if it was fp16",
        )


@torch.inference_mode()
def reads_in_stretches(model: AdaptedModel, max_length: int) -> bool:
    """Whether a cache of the model's own kind takes a text in several stretches."""
    if DynamicRope(model.base):
        return False
    with model.as_loaded():
        reference = Reference(model.base, max_length)
        return _agrees(lambda: OwnCacheRunner(model, 2), reference, reference.stretches)


def _slots(
    model: AdaptedModel, reference: Reference, seen: ImageReference | None, *, budget: int, max_length: int
) -> KVCache | None:
    """The cache for a SlotRunner, and the model set to it; None when slots do not give the model's answers."""
    config = model.base.config.get_text_config(decoder=True).to_dict()
    layers = config.get("layer_types") or []
    if DynamicRope(model.base) or not set(layers) <= PLAIN_LAYERS:
        return None
    own = _own_step(model, reference.tokens)
    if own is None:
        model.set_attention(model.own_attention)
        return None
    survey = own.survey
    if survey.is_whole and survey.windows_fit(layers, config.get("sliding_window")):

        def cache(size: int) -> KVCache:
            return KVCache(survey.shapes, survey.dtype, survey.devices, budget=size, max_length=max_length)

        def agrees() -> bool:
            return all(
                _agrees(lambda: SlotRunner(model, cache(2**62)), each, each.stretches, singles=SLOT_SINGLES)
                for each in (reference, seen)
                if each is not None
            )

        model.allow_plain(own)
        fits = agrees()
        if not fits and model.plain(None) is not None:
            model.hows = None  # by the model's own forward pass
            fits = agrees()
        if fits:
            return cache(budget)
    model.set_attention(model.own_attention)
    return None


def _own_step(model: AdaptedModel, tokens: list[int]) -> OwnStep | None:
    """A step of the base, which says what every layer stores; None when the model does not pass a step on."""
    try:
        model.set_attention(NAME)
        return OwnStep.of(model.base, torch.tensor([tokens], device=device_of(model.base)))
    except Exception as error:  # a class without **kwargs, or of fixed attention, refuses in ways of its own
        log.debug("%s: %s", type(error).__name__, error)
        return None


def _agrees(
    start: Callable[[], Runner],
    reference: Reference | ImageReference,
    stretches: tuple[int, ...],
    *,
    singles: int = SINGLES,
) -> bool:
    """Whether the runner gives the reference's logits after each stretch and single, beside another text."""
    try:
        steps = _steps(start(), reference, [*stretches, *[1] * singles])
        return all(_near(logits, reference.after(count)) for count, logits in steps)
    except Exception as error:  # whatever goes wrong on a way that is only tried, the way is not taken
        log.debug("%s: %s", type(error).__name__, error)
        return False


def _steps(runner: Runner, reference: Reference | ImageReference, counts: list[int]) -> Iterator[tuple[int, Tensor]]:
    """Step through the text as the engine would -> tokens so far, and the logits after them."""
    tokens = reference.tokens
    images = reference.images if isinstance(reference, ImageReference) else None
    text, other = _sequence(tokens, images), _sequence(tokens[::-1])
    for sequence in (text, other):
        if runner.admit(sequence) is None or not runner.reserve(sequence):
            raise SwiftError("there is no memory for two short texts")
    computed, end = 0, min(sum(counts), len(tokens))
    for count in counts:
        count = min(count, end - computed)
        if not count:
            break
        beside = [other] if computed < end - 1 else []  # the last single runs alone
        computed += count
        yield computed, runner.extend([text, *beside], [count] * (1 + len(beside)))[0]
    for sequence in (text, other):
        runner.release(sequence)


def _sequence(tokens: list[int], images: ImagePrompt | None = None) -> Sequence:
    prompt = tokens if images is None else tokens[: len(images.keys)]
    request = Request(id="trial", prompt_ids=tuple(prompt), sampling=SamplingParams(max_tokens=1))
    sequence = Sequence(request, 0, None, frozenset(), len(tokens), None, images)
    sequence.tokens = list(tokens)
    return sequence


def _near(one: Tensor, other: Tensor) -> bool:
    """Whether logits, (vocabulary,), are equal but for rounding; a vocabulary may have -inf where it has no token.

    `one` may go on behind the end of `other`, for tokens that an adapter has added.
    """
    one, finite = one[: len(other)], other.isfinite()
    if not bool((one.isfinite() == finite).all()):
        return False
    tolerance = TOLERANCE.get(one.dtype, HALF_TOLERANCE)
    one, other = one[finite], other[finite]
    return float((one - other).abs().max()) <= tolerance * float(other.abs().max())
