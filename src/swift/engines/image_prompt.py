"""Images in a prompt as the engine has them: what the model is given of them, and what their tokens are known by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swift.models.families import Images


@dataclass(frozen=True, eq=False)
class ImagePrompt:
    """The images of one prompt of T tokens."""

    inputs: Mapping[str, Tensor]
    """The model's keywords beside the token ids."""
    keys: Sequence[int]
    """The ids, where a piece of a picture is a number that no other picture has: prompts that begin with the same keys
    begin the same."""
    places: Tensor
    """Positions of the tokens, (1, T), or (coordinates, 1, T) where they have several."""
    shift: int
    """What is added to the number of a token behind the prompt to have its position."""

    def positions(self, start: int, stop: int) -> Tensor:
        """Positions of the tokens from `start` to `stop`, which may lie behind the prompt."""
        inside = self.places[..., start:stop]
        missing = stop - max(start, self.places.shape[-1])
        if missing <= 0:
            return inside
        behind = torch.arange(stop - missing, stop, device=inside.device) + self.shift
        return torch.cat([inside, behind.expand(*inside.shape[:-1], missing)], dim=-1)

    def moved(self, device: torch.device, dtype: torch.dtype, length: int | None = None) -> dict[str, Tensor]:
        """The model's keywords where it computes, pixels in its type, for `length` tokens (None: those of the prompt);
        what is said of each token of the prompt is 0 for those behind it."""
        prompt, moved = self.places.shape[-1], {}
        for name, value in self.inputs.items():
            longer = value
            if length is not None and value.shape == (1, prompt):
                longer = torch.nn.functional.pad(value, (0, length - prompt))
            moved[name] = longer.to(device, dtype if value.is_floating_point() else value.dtype)
        return moved


def image_prompt(images: Images, model: PreTrainedModel, ids: Sequence[int], sources: Sequence[str]) -> ImagePrompt:
    """The images of a prompt: opened, resized, counted. Raises SwiftError for those that do not fit its tokens."""
    keys = images.keys(ids, sources)
    row = torch.tensor([list(ids)])
    inputs = images.inputs(sources, row)
    places = images.family.positions(model, row, inputs)
    if places is None:
        return ImagePrompt(inputs, keys, torch.arange(len(ids))[None], 0)
    return ImagePrompt(inputs, keys, places, int(places.max()) + 1 - len(ids))


class _AtDecoder(Exception):
    """The model has come to its decoder, which would be given this."""

    def __init__(self, embeddings: Tensor):
        super().__init__()
        self.embeddings = embeddings


def decoder_embeddings(model: Any, decoder: torch.nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """What `decoder` is given for its tokens, (1, T, hidden size), when `model` is given `inputs`: text and images."""

    def stop(module: torch.nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        raise _AtDecoder(given["inputs_embeds"])

    hook = decoder.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(**inputs, use_cache=False)
    except _AtDecoder as reached:
        return reached.embeddings
    finally:
        hook.remove()
    raise RuntimeError(f"{type(model).__name__} never asked its decoder")
