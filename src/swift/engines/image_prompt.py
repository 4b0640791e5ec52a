"""Media in a prompt as the engine has them: what the model is given of them, and what their tokens are known by."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swift.models.families import OF_TOKENS, MediaProcessor
from swift.prompts.types import Media


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
        """The model's keywords where it computes, pixels in its type, for `length` tokens (None: those of the prompt).

        Behind the prompt a token is of kind 0, and looks where the prompt's last one does.
        """
        missing = 0 if length is None else length - self.places.shape[-1]
        moved = {}
        for name, value in self.inputs.items():
            longer = value
            if missing and name in OF_TOKENS:
                last = value[:, -1:] if value.ndim > 2 else torch.zeros_like(value[:, -1:])
                longer = torch.cat([value, last.expand(-1, missing, *value.shape[2:])], dim=1)
            moved[name] = longer.to(device, dtype if value.is_floating_point() else value.dtype)
        return moved

    def looks(self, device: torch.device, start: int, stop: int) -> dict[str, Tensor]:
        """Where the tokens from `start` to `stop` look, for a model whose cache has the images already."""
        masks = {name: value for name, value in self.inputs.items() if value.ndim > 2 and name in OF_TOKENS}
        longer = replace(self, inputs=masks).moved(device, torch.float32, stop)
        return {name: value[:, start:stop] for name, value in longer.items()}


def image_prompt(
    images: MediaProcessor,
    model: PreTrainedModel,
    ids: Sequence[int],
    media: Media,
    labels: Sequence[int] | None = None,
) -> ImagePrompt:
    """The media of a prompt: opened, resized, counted. Raises SwiftError for those that do not fit its tokens.

    `labels` are those of training, where the ids have an answer in them that is only read.
    """
    keys = images.keys(ids, media)
    row = torch.tensor([list(ids)])
    inputs = images.inputs([media], row, None if labels is None else torch.tensor([list(labels)]))
    places = images.family.positions(model, row, inputs)
    if places is None:
        return ImagePrompt(inputs, keys, torch.arange(len(ids))[None], 0)
    return ImagePrompt(inputs, keys, places, int(places.max()) + 1 - len(ids))


class ImagePrompts:
    """Makes them apart from the event loop and from the thread that computes. `images` is None for a model of text."""

    def __init__(self, images: MediaProcessor | None):
        self._images = images
        # One thread for all: every further one that computes would get a team of OpenMP's threads of its own.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="images")

    async def make(
        self, model: PreTrainedModel, ids: Sequence[int], media: Media, labels: Sequence[int] | None = None
    ) -> ImagePrompt | None:
        """See `image_prompt`; None where nothing is shown and the model is given the ids alone.

        With `labels` the ids have an answer in them, and a model may be given something beside a text too.
        """
        if self._images is None or not (media.any or labels):
            return None
        work = partial(image_prompt, self._images, model, ids, media, labels)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Take no more of them."""
        self._thread.shutdown(wait=False)


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
