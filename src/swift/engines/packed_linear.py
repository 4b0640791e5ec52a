"""Linear layers of a CPU engine, with weights in the order that oneDNN's matrix products read them in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROWS = 16
"""Rows of input that the order is chosen for. It was the fastest for every number from 1 to 1024 all the same."""


class PackedLinear(nn.Linear):
    """A linear layer with the weights of another, without gradient. The sums are the same, taken in another order.

    A plain layer sorts its weights anew in each call, which for a handful of rows takes as long as the product.
    """

    def __init__(self, layer: nn.Linear):
        nn.Module.__init__(self)  # nn.Linear would make a weight of its own
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.register_parameter("bias", layer.bias)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)

    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]  # a copy, made when asked for
        """The weights in their plain order, (out features, in features), for adapters that compute with them."""
        return self._packed.to_dense()

    def forward(self, input: Tensor) -> Tensor:
        """(…, in features) -> (…, out features)."""
        return torch.ops.mkldnn._linear_pointwise(input, self._packed, self.bias, "none", [], "")


@torch.no_grad()
def quicken(model: nn.Module) -> None:
    """Put `PackedLinear` in the place of the plain fp32 linear layers that lie on a CPU."""
    if not torch.backends.mkldnn.is_available():
        return
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear and layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32:
                setattr(parent, name, PackedLinear(layer))
