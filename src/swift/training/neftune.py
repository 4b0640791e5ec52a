"""NEFTune (arXiv 2310.05914): noise on the embeddings while training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class Neftune:
    """Adds uniform noise of size alpha / sqrt(length x width) to the embedded tokens of each sequence.

    A padding-free row holds several sequences, each of which gets the noise of its own length, so that the strength
    does not depend on how rows are batched. Both `--neftune_backend` values are this one hook.
    """

    def __init__(self, model: Any, alpha: float):
        self._alpha = alpha
        self._lengths: Tensor | None = None
        self._handles: list[RemovableHandle] = [
            model.register_forward_pre_hook(self._note, with_kwargs=True),
            model.get_input_embeddings().register_forward_hook(self._add),
        ]

    def remove(self) -> None:
        """Take the noise away again, for good."""
        for handle in self._handles:
            handle.remove()

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remember, for each token of the batch, the length of its sequence."""
        mask, sizes = kwargs.get("attention_mask"), kwargs.get("sequence_lengths")
        if mask is not None:
            self._lengths = mask.sum(-1, keepdim=True).expand_as(mask)
        elif sizes is not None:
            lengths = torch.tensor(sizes)
            self._lengths = lengths.repeat_interleave(lengths)[None].to(kwargs["input_ids"].device)
        else:
            self._lengths = None

    def _add(self, module: nn.Module, args: tuple[Any, ...], embedded: Tensor) -> Tensor:
        if not module.training:
            return embedded
        if self._lengths is None or self._lengths.shape != embedded.shape[:2]:
            size = torch.full(embedded.shape[:2], embedded.shape[1], device=embedded.device)
        else:
            size = self._lengths
        strength = self._alpha / (size * embedded.shape[-1]).to(embedded.dtype).sqrt()
        return embedded + torch.empty_like(embedded).uniform_(-1, 1) * strength[..., None]
