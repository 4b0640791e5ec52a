"""Forward passes of models whose encoder reads the prompt: once, and its states are kept while the decoder answers."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from swift.engines.adapter_pool import AdaptedModel
from swift.engines.image_prompt import ImagePrompt
from swift.engines.sequence import Sequence


def split_inputs(
    ids: Many[int],
    prompt: int,
    opening: Many[int],
    device: torch.device,
    dtype: torch.dtype,
    images: ImagePrompt | None,
) -> dict[str, Tensor]:
    """The model's keywords for a row whose first `prompt` tokens its encoder reads, and its decoder the others.

    Logits at `decoder_input_ids` (1, U) predict the tokens behind the last of `opening`.
    """
    shown = {} if images is None else images.moved(device, dtype)
    return {
        "input_ids": torch.tensor([list(ids[:prompt])], device=device),
        "decoder_input_ids": torch.tensor([[*opening, *ids[prompt:]]], device=device),
        **shown,
    }


@dataclass
class _Answer:
    """How far one is."""

    computed: int = 0
    """Tokens, those of the prompt among them."""
    encoded: Tensor | None = None
    """What the encoder made of the prompt, (1, T, hidden size)."""
    cache: Any = None


class EncoderDecoderRunner:
    """Each answer runs by itself (see runner.py), begins with `opening`, and is one of `places` at once."""

    splits_prompts = False

    def __init__(self, model: AdaptedModel, places: int, opening: Many[int]):
        self._model = model
        self._places = places
        self._opening = opening
        self._answers: dict[Sequence, _Answer] = {}

    def admit(self, sequence: Sequence) -> int | None:
        if len(self._answers) >= self._places:
            return None
        self._answers[sequence] = _Answer()
        return 0

    def reserve(self, sequence: Sequence) -> bool:
        return True

    def computed(self, sequence: Sequence) -> int:
        return self._answers[sequence].computed

    def extend(self, sequences: Many[Sequence], counts: Many[int]) -> Tensor:
        return torch.stack([self._extend(each, count) for each, count in zip(sequences, counts, strict=True)])

    def release(self, sequence: Sequence) -> None:
        self._answers.pop(sequence, None)

    def forget(self, adapter: str) -> None:
        """Nothing is kept."""

    @property
    def used(self) -> float:
        """Share of the places taken."""
        return len(self._answers) / self._places

    def _extend(self, sequence: Sequence, count: int) -> Tensor:
        answer, base = self._answers[sequence], self._model.base
        stop = answer.computed + count
        if answer.encoded is None:
            prompt = len(sequence.request.prompt_ids)
            assert stop >= prompt
            ids = sequence.tokens[:stop]
            given = split_inputs(ids, prompt, self._opening, base.device, base.dtype, sequence.images)
        else:
            new = torch.tensor([sequence.tokens[answer.computed : stop]], device=base.device)
            states = BaseModelOutput(last_hidden_state=answer.encoded)
            given = {"decoder_input_ids": new, "encoder_outputs": states, "past_key_values": answer.cache}
        output = self._model.forward([sequence.request.adapter], use_cache=True, logits_to_keep=1, **given)
        encoded = output.encoder_last_hidden_state if answer.encoded is None else answer.encoded
        self._answers[sequence] = _Answer(stop, encoded, output.past_key_values)
        return output.logits[0, -1]
