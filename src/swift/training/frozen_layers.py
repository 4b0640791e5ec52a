"""Frozen linear layers of a run on a CPU, with weights in the order in which oneDNN's products read them.

A plain layer sorts its weights anew in each pass, forward and backward, although an adapter's base never changes. Here
they are sorted once for each direction: products take a tenth less time, and the layers twice the memory.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from swift import tuners
from swift.core.log import log
from swift.engines.packed_linear import ONEDNN_PRODUCT, ROWS, OneDnn, PackedLinear, multiplies_bf16, packed_dtypes


class BothWays(OneDnn):
    """Weights for the product and for the gradient of its input; they have none themselves."""

    def __init__(self, weight: Tensor):
        super().__init__(weight)
        self._transposed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().t(), ROWS)

    def product(self, input: Tensor, bias: Tensor | None) -> Tensor:
        answer: Any = _Product.apply(input.reshape(-1, input.shape[-1]).to(self._weight.dtype), bias, self)
        return answer.view(*input.shape[:-1], -1)

    def forward(self, input: Tensor, bias: Tensor | None) -> Tensor:
        """(rows, in features) -> (rows, out features), without autograd, and no view: tuners add to it in place."""
        answer = super().product(input, bias)
        return answer.clone() if answer._is_view() else answer

    def backward(self, gradient: Tensor) -> Tensor:
        """(rows, out features) -> (rows, in features)."""
        return ONEDNN_PRODUCT(gradient.contiguous(), self._transposed, None, "none", [], "")


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, bias: Tensor | None, weights: BothWays) -> Tensor:
        ctx.weights = weights
        return weights.forward(input, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.weights.backward(gradients[0]), None, None


@torch.no_grad()
def pack_frozen(model: nn.Module) -> None:
    """Put packed layers in the place of the plain ones that nothing trains, the head left out.

    The head's weights are read for the loss.
    """
    head = tuners.base_model(model).get_output_embeddings()
    packed, dtypes, exact = 0, packed_dtypes(), False
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if is_packed(layer) and layer is not head and layer.weight.dtype in dtypes:
                exact |= layer.weight.dtype == torch.float32
                setattr(parent, name, PackedLinear(layer, BothWays))
                packed += 1
    if packed:
        log.info("%d frozen layers are kept in the order that oneDNN reads them in", packed)
        if exact and multiplies_bf16():
            log.info("--dtype bf16 may be quicker on this CPU, and takes less memory")
    else:
        log.info("no layer is packed: none is a plain frozen one that oneDNN multiplies here")


def packing_bytes(model: nn.Module) -> int:
    """What `pack_frozen` adds to the memory, where oneDNN multiplies the dtype."""
    head = tuners.base_model(model).get_output_embeddings()
    layers = {layer for layer in model.modules() if is_packed(layer) and layer is not head}
    return sum(layer.weight.nbytes for layer in layers)


def is_packed(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether `pack_frozen` takes this layer, unless it is the head."""
    if type(layer) is not nn.Linear or layer.weight.dtype not in (torch.float32, torch.bfloat16):
        return False
    return not any(parameter.requires_grad for parameter in layer.parameters())
