"""Beam search: transformers' own, for one request at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from swift.core.errors import SwiftError
from swift.engines.adapter_pool import AdaptedModel
from swift.engines.base import SamplingParams
from swift.engines.dynamic_rope import DynamicRope
from swift.engines.sequence import Sequence


def check_beams(sampling: SamplingParams) -> None:
    """Raises SwiftError for what a beam search does not do."""
    unsupported = {
        "a grammar": sampling.grammar is not None,
        "log-probabilities": sampling.logprobs is not None,
        "presence and frequency penalties": bool(sampling.presence_penalty or sampling.frequency_penalty),
        "logit_bias": bool(sampling.logit_bias),
        "min_p": sampling.min_p > 0,
    }
    for option, given in unsupported.items():
        if given:
            raise SwiftError(f"beam search does not go with {option}", where="num_beams", next="use num_beams 1")
    if sampling.n > sampling.num_beams:
        raise SwiftError(f"n is {sampling.n}, but there are only {sampling.num_beams} beams", where="num_beams")


class _Stopped(StoppingCriteria):
    def __init__(self, stop: Callable[[], bool]):
        self._stop = stop

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return torch.full((input_ids.shape[0],), self._stop(), dtype=torch.bool, device=input_ids.device)


def beam_search(model: AdaptedModel, sequences: list[Sequence], stop: Callable[[], bool]) -> list[list[int]]:
    """The new tokens of the best answers to one prompt, one for each of `sequences`. Ends early when `stop` says so."""
    first = sequences[0]
    opening = first.opening
    request, sampling = first.request, first.request.sampling
    prompt = torch.tensor([request.prompt_ids], device=model.base.device)
    ends = sorted(first.ends)
    drawn = {"temperature": sampling.temperature, "top_k": sampling.top_k or None, "top_p": sampling.top_p}
    if sampling.temperature and sampling.seed is not None:
        torch.manual_seed(sampling.seed)
    DynamicRope(model.base).settle(len(request.prompt_ids))
    output = model.generate(
        request.adapter,
        input_ids=prompt,
        **({} if first.images is None else first.images.moved(prompt.device, model.base.dtype)),
        attention_mask=torch.ones_like(prompt),
        num_beams=sampling.num_beams,
        num_return_sequences=len(sequences),
        max_new_tokens=first.limit - len(request.prompt_ids) + len(opening[1:]),
        min_new_tokens=sampling.min_tokens or None,
        **({"forced_bos_token_id": opening[1]} if opening else {}),
        length_penalty=sampling.length_penalty,
        repetition_penalty=sampling.repetition_penalty,
        do_sample=sampling.temperature > 0,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,
        stopping_criteria=StoppingCriteriaList([_Stopped(stop)]),
        **(drawn if sampling.temperature > 0 else {"temperature": None, "top_k": None, "top_p": None}),
    )
    return [row[len(opening) or prompt.shape[1] :].tolist() for row in output]
