"""The last layer of a language model, taken out of its forward so that logits are made only where they are needed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


class OutputHead:
    """The head of a model, where it is a plain linear layer.

    Where it is more (logits that are capped or scaled, a LoRA on it), which is measured once, `linear` is None and the
    model makes the logits itself.
    """

    def __init__(self, model: PreTrainedModel):
        head = model.get_output_embeddings()
        self.module = head
        self.linear = head if isinstance(head, nn.Linear) and type(head) is nn.Linear and _plain(model, head) else None

    def hidden(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """Final hidden states (B, T, H) of `model` (possibly wrapped): what the head is given.

        The head itself only gets one position to work on.
        """
        return self._run(model, inputs, keep_logits=False)[0]

    def with_logits(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Final hidden states (B, T, H), and the logits (B, T, V) that the model makes of them."""
        return self._run(model, inputs, keep_logits=True)

    def _run(self, model: nn.Module, inputs: dict[str, Any], *, keep_logits: bool) -> tuple[Tensor, Tensor]:
        inputs_of_head: list[Tensor] = []

        def take(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            inputs_of_head.append(given[0])
            return None if keep_logits else (given[0][:, :1].detach(),)

        assert self.module is not None
        handle = self.module.register_forward_pre_hook(take)
        try:
            logits: Tensor = model(**inputs).logits
        finally:
            handle.remove()
        return inputs_of_head[0], logits


@torch.no_grad()
def _plain(model: PreTrainedModel, head: nn.Linear) -> bool:
    """Whether the model's logits are `head(hidden)` and nothing else, tried on a few tokens."""
    was_training = model.training
    model.eval()
    outputs: list[Tensor] = []

    def note(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        outputs.append(output)

    handle = head.register_forward_hook(note)
    try:
        ids = torch.arange(1, 5, device=head.weight.device)[None]
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()
        model.train(was_training)
    return len(outputs) == 1 and torch.equal(outputs[0].float(), logits.float())
