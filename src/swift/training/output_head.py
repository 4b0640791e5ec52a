"""The last layer of a language model, whose forward makes what is wanted of the hidden states instead of logits.

What is wanted needs the layer's weights. Engines that share weights out (ZeRO, FSDP) gather those of a layer for its
own forward and backward only, so that is where all of it is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from swift.training.varlen_attention import PROBE

Work = Callable[[Tensor, nn.Linear], Tensor]
"""From the final hidden states (B, T, H) and the head to a tensor in at least fp32."""


class OutputHead:
    """The head of a model, where it is a plain linear layer and what leaves it is what the model returns.

    Where it is more (logits that are capped or scaled, a LoRA on it), which is measured once, it is not `plain` and
    the model makes the logits itself.
    """

    def __init__(self, model: PreTrainedModel):
        head = model.get_output_embeddings()
        self._model, self._module = model, head
        self.plain = isinstance(head, nn.Linear) and type(head) is nn.Linear and _passes_on(model, head)

    def compute(self, model: nn.Module, inputs: dict[str, Any], work: Work) -> Tensor:
        """Run `model` (possibly wrapped) with `work` in place of its head. -> what that returned.

        The head itself only gets one position to work on. Only for a head that is `plain`.
        """
        hidden: list[Tensor] = []
        shapes: list[torch.Size] = []

        def cut(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hidden.append(given[0])
            return (given[0][:, :1].detach(),)

        def instead(head: Any, _given: Any, _logits: Tensor) -> Tensor:
            with torch.autocast(hidden[0].device.type, enabled=False):
                result = work(hidden[0], head)
            shapes.append(result.shape)
            return result.reshape(1, -1, 1)

        assert self._module is not None and self.plain
        # The first of the hooks on the way out: an engine's own gives the weights back.
        handles = [
            self._module.register_forward_pre_hook(cut),
            self._module.register_forward_hook(instead, prepend=True),
        ]
        try:
            through: Tensor = model(**inputs).logits
        finally:
            for handle in handles:
                handle.remove()
        return through.reshape(shapes[0])

    def hidden(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """Final hidden states (B, T, H) of `model` (possibly wrapped): what the head is given."""
        return self.instead_of_logits(model, inputs, lambda hidden: hidden)

    def instead_of_logits(self, model: nn.Module, inputs: dict[str, Any], work: Callable[[Tensor], Tensor]) -> Tensor:
        """What `work` makes of the final hidden states (B, T, H), within the forward pass of `model`.

        DDP looks for weights without a gradient in what a model returns, and would take those of `work` for such.
        """
        return self._within(model, inputs, lambda hidden, _: work(hidden), cut=True)

    def with_logits(self, model: nn.Module, inputs: dict[str, Any], work: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Likewise, of the hidden states and the logits (B, T, V) that the model makes of them."""
        return self._within(model, inputs, work, cut=False)

    def _within(
        self, model: nn.Module, inputs: dict[str, Any], work: Callable[[Tensor, Tensor], Tensor], *, cut: bool
    ) -> Tensor:
        """What `work` makes of hidden states and logits; when `cut`, the head gets one position, without gradient."""
        hidden: list[Tensor] = []
        shapes: list[torch.Size] = []

        def take(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hidden.append(given[0])
            return (given[0][:, :1].detach(),) if cut else given

        def instead(_model: nn.Module, _given: Any, output: Any) -> Any:
            result = work(hidden[0], output.logits)
            shapes.append(result.shape)
            output.logits = result.reshape(1, -1, 1)
            return output

        assert self._module is not None
        # The first of the hooks on the way out: an engine's own follows what the model returns on its way back.
        handles = [
            self._module.register_forward_pre_hook(take),
            self._model.register_forward_hook(instead, prepend=True),
        ]
        try:
            through: Tensor = model(**inputs).logits
        finally:
            for handle in handles:
                handle.remove()
        return through.reshape(shapes[0])


@torch.no_grad()
def _passes_on(model: PreTrainedModel, head: nn.Linear) -> bool:
    """Whether the model returns as its logits what leaves `head`, be it of another length, and nothing else.

    Tried on a few tokens, with numbers in place of logits that no capping, scaling or cutting would leave as they are.
    """
    was_training = model.training
    model.eval()
    calls: list[Tensor] = []

    def instead(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        given = torch.arange(1.0, 1 + 3 * output.shape[-1], device=output.device).reshape(1, 3, -1) % 61 - 30
        calls.append(given)
        return given

    handle = head.register_forward_hook(instead)
    try:
        ids = torch.arange(1, 1 + sum(PROBE), device=head.weight.device)[None]
        logits = model(input_ids=ids, use_cache=False).logits
    except (RuntimeError, ValueError):  # it counts on the length, or on logits for each token
        return False
    finally:
        handle.remove()
        model.train(was_training)
    return len(calls) == 1 and logits.dtype == calls[0].dtype and torch.equal(calls[0], logits)
