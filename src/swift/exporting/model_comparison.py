"""Does a model on disk answer as another one does? Logits and greedy tokens on a fixed set of prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from swift.core.log import log
from swift.tuners import base_model

PROMPTS = (
    "The capital of France is",
    "请用一句话介绍你自己。",
    "def fibonacci(n):\n",
    "Question: What is 17 + 25?\nAnswer:",
)
NEW_TOKENS = 16
ENCODED = 4
"""Tokens that an encoder reads of each prompt."""
RANDOM_TOKENS = 64
"""Tokens spread over the whole vocabulary, so that rarely used embedding rows are looked at too."""
EXACT = 1e-4
"""Largest logit difference that rounding in fp32 explains, where logits stay below 10; it grows with them."""
CACHE_NOISE = 1e-2
"""Largest change of a logit by a cache that is right, as a share of the largest logit."""
SHAKEN = 2
"""Runs with other roundings; the largest of their changes varies by a factor of three from run to run."""


@dataclass(frozen=True)
class Observation:
    """Sequences a model was run on (prompts with its own greedy continuation) and the logits it gave."""

    sequences: tuple[tuple[int, ...], ...]
    prompt_lengths: tuple[int, ...]
    logits: tuple[Tensor, ...]
    """One (T, V) fp32 tensor on the CPU for each sequence."""
    rounding: float
    """The model's own noise: what its logits differ by token by token, and when every rounding falls otherwise."""

    @property
    def largest(self) -> float:
        """The largest absolute logit."""
        return max(float(logits.abs().max()) for logits in self.logits)

    @property
    def tolerance(self) -> float:
        """The logit difference that fp32 rounding explains; more in a model that amplifies its own rounding."""
        return max(EXACT * max(1.0, self.largest / 10), 4 * self.rounding)


@dataclass(frozen=True)
class Comparison:
    """How far another model is from an observation."""

    max_difference: float
    """Largest absolute difference of two logits."""
    agreement: float
    """Share of the continuation's tokens that are the other model's greedy choice too."""
    tokens: int
    """Number of continuation tokens compared."""


def prompts(tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> list[list[int]]:
    """Token ids of the fixed texts, of one turn in the chat format if there is one, and of random tokens."""
    ids = [tokenizer.encode(text) for text in PROMPTS]
    if tokenizer.chat_template:
        turn = [{"role": "user", "content": "Who are you?"}]
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        ids.append(tokenizer.encode(str(text), add_special_tokens=False))
    generator = torch.Generator().manual_seed(0)
    ids.append(torch.randint(vocabulary, (RANDOM_TOKENS,), generator=generator).tolist())
    return [sequence for sequence in ids if sequence]


def observe(model: nn.Module, prompt_ids: list[list[int]], new_tokens: int = NEW_TOKENS) -> Observation:
    """Let `model` continue each prompt greedily, and keep its logits over prompt and continuation."""
    sequences, all_logits, rounding = [], [], 0.0
    generator = torch.Generator().manual_seed(0)
    cached = _cache_is_right(model, prompt_ids[0], new_tokens)
    for prompt in prompt_ids:
        continuation, step_by_step = _continue(model, prompt, new_tokens, cached=cached)
        logits = _logits(model, (*prompt, *continuation))
        rounding = max(rounding, _difference(logits[len(prompt) - 1 : -1], step_by_step))
        with _rounded_otherwise(model, generator):
            shaken = [_logits(model, (*prompt, *continuation)) for _ in range(SHAKEN)]
        rounding = max(rounding, *(_difference(other, logits) for other in shaken))
        sequences.append((*prompt, *continuation))
        all_logits.append(logits)
    return Observation(tuple(sequences), tuple(map(len, prompt_ids)), tuple(all_logits), rounding)


def compare(seen: Observation, model: nn.Module) -> Comparison:
    """Run `model` over the observed sequences and measure how its logits and greedy choices differ."""
    worst, same, total = 0.0, 0, 0
    for sequence, start, expected in zip(seen.sequences, seen.prompt_lengths, seen.logits, strict=True):
        logits = _logits(model, sequence)
        worst = max(worst, _difference(logits, expected))
        choices = logits[start - 1 : -1].argmax(-1)
        same += int((choices == torch.tensor(sequence[start:])).sum())
        total += len(choices)
    return Comparison(worst, same / total, total)


def different_tensors(left: nn.Module, right: nn.Module) -> list[str]:
    """Names of the parameters and buffers that are not the same, bit for bit, in two models."""
    ours, theirs = left.state_dict(), right.state_dict()
    names = ours.keys() | theirs.keys()
    return sorted(n for n in names if n not in ours or n not in theirs or not _equal(ours[n], theirs[n]))


def _equal(left: Tensor, right: Tensor) -> bool:
    return left.dtype == right.dtype and torch.equal(left.cpu(), right.cpu())


def _difference(left: Tensor, right: Tensor) -> float:
    """Largest absolute difference; infinite where a shape or a NaN makes the two incomparable."""
    if left.shape != right.shape or not bool(torch.isfinite(left).all()):
        return float("inf")
    return float((left - right).abs().max())


@torch.inference_mode()
def _logits(model: nn.Module, sequence: tuple[int, ...]) -> Tensor:
    return model(**_given(model, sequence, sequence), use_cache=False).logits[0].float().cpu()


def _given(model: nn.Module, text: Sequence[int], step: Sequence[int]) -> dict[str, Tensor]:
    """The keywords for the tokens `step` at the end of `text`. An encoder beside the decoder reads the beginning."""
    ids = torch.tensor([step], device=_device(model))
    base: Any = base_model(model)
    if not base.config.is_encoder_decoder:
        return {"input_ids": ids}
    return {"input_ids": torch.tensor([text[:ENCODED]], device=ids.device), "decoder_input_ids": ids}


@torch.inference_mode()
def _continue(model: nn.Module, prompt: list[int], new_tokens: int, *, cached: bool) -> tuple[list[int], Tensor]:
    """Greedy tokens and the logits they were taken from, (new_tokens, V).

    An end token does not stop it, so that each prompt gives the same number of comparisons.
    """
    text, step, cache = list(prompt), prompt, None
    taken_from = []
    for _ in range(new_tokens):
        kept = {} if cache is None else {"past_key_values": cache}
        output = model(**_given(model, text, step), use_cache=cached, **kept)
        cache = output.get("past_key_values") if cached else None
        taken_from.append(output.logits[0, -1].float().cpu())
        text.append(int(taken_from[-1].argmax()))
        # Recurrent models keep a state of their own, or nothing: the whole text once more is always right.
        step = text if cache is None else text[-1:]
    return text[len(prompt) :], torch.stack(taken_from)


def _cache_is_right(model: nn.Module, prompt: list[int], new_tokens: int) -> bool:
    """Whether the model's own cache gives its answers; many classes fail with it, or are wrong, in ways of their own.

    The noise of a wrong cache would pass for rounding, and allow any difference.
    """
    try:
        continuation, step_by_step = _continue(model, prompt, new_tokens, cached=True)
    except Exception as error:  # whatever goes wrong on a way that is only tried, the way is not taken
        log.debug("%s: %s", type(error).__name__, error)
        return False
    logits = _logits(model, (*prompt, *continuation))[len(prompt) - 1 : -1]
    return _difference(logits, step_by_step) <= CACHE_NOISE * float(logits.abs().max())


@contextmanager
def _rounded_otherwise(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """While it lasts, what goes into each module is one rounding off, up or down by chance.

    Folding ΔW into W rounds Wx + ΔWx otherwise than adding the two up does, by about this much in each layer. Where a
    large update makes the attention of a model chaotic, its logits change by more than any fixed bound allows; this is
    the usual way to find out by how much (Monte Carlo arithmetic: Parker, 1997).
    """

    def shake(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(off_by_one(x) if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)

    def off_by_one(x: Tensor) -> Tensor:
        signs = torch.randint(2, x.shape, generator=generator).to(x) * 2 - 1
        return x * (1 + torch.finfo(x.dtype).eps * signs)

    handles = [module.register_forward_pre_hook(shake) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
