"""Answers of the model that trains, by the engine that serves models, over the very weights in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from swift.core.errors import SwiftError
from swift.engines.base import Delta, Request, SamplingParams
from swift.engines.torch import TorchEngine
from swift.models.families import MediaProcessor
from swift.prompts.types import Media
from swift.training.rows_with_media import answering


@dataclass(frozen=True)
class Answer:
    """What was sampled after a prompt."""

    ids: tuple[int, ...]
    """The token that ended it included."""
    log_probs: tuple[float, ...]
    """Of each token, at temperature 1, as the engine computed them."""
    text: str
    """As a user would see it: without special tokens and the string that ended it."""
    ended: bool
    """Whether it came to its end, or was cut."""


def sample(
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Sequence[Mapping[str, Any]],
    how: Sequence[SamplingParams],
    places: int,
    images: MediaProcessor | None = None,
) -> list[Answer]:
    """An answer to each prompt, its `input_ids` and perhaps `media`. `model` has its adapter on, and is as it was
    afterwards.

    An engine lives as long as the weights do not change: what it keeps of prompts is theirs.
    """
    requests = [
        Request(
            id=str(number),
            prompt_ids=tuple(prompt["input_ids"]),
            sampling=sampling,
            media=prompt.get("media", Media()),
        )
        for number, (prompt, sampling) in enumerate(zip(prompts, how, strict=True))
    ]
    with answering(model, images):
        return asyncio.run(_answers(model, tokenizer, requests, places, images))


async def _answers(
    model: PreTrainedModel, tokenizer: Any, requests: list[Request], places: int, images: MediaProcessor | None
) -> list[Answer]:
    engine = TorchEngine(lambda: model, tokenizer, places=places, repack=False, images=images)
    try:
        return [_answer(deltas) for deltas in await engine.together(requests)]
    finally:
        await engine.close()


def _answer(deltas: list[Delta]) -> Answer:
    last = deltas[-1]
    if last.finish_reason not in ("stop", "length"):
        raise SwiftError("an answer could not be sampled", why=last.error or str(last.finish_reason))
    return Answer(
        tuple(token for delta in deltas for token in delta.token_ids),
        tuple(one.logprob for delta in deltas for one in delta.logprobs),
        "".join(delta.text for delta in deltas),
        last.finish_reason == "stop",
    )
