"""Linear layers of a CPU engine, with weights in the order that oneDNN's matrix products read them in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

ROWS = 16
"""Rows of input that the order is chosen for. It was the fastest for every number from 1 to 1024 all the same."""

ONEDNN_PRODUCT = torch.ops.mkldnn._linear_pointwise.default


class Packed(Protocol):
    """The weights of a linear layer in the order, or the precision, that a product reads them in."""

    alone: int
    """Rows that a single one is computed as."""

    def product(self, input: Tensor, bias: Tensor | None) -> Tensor:
        """(…, in features) -> (…, out features)."""
        ...

    def dense(self) -> Tensor:
        """A copy of the weights in their plain order, (out features, in features)."""
        ...


class OneDnn:
    """The same weights in another order: the sums are the same, taken in another order.

    A single row is computed as `alone`: oneDNN would add it up in an order of its own, and what a row gives should not
    depend on how many come with it. It is faster at 4 than at 1 or 2, by a fifth in fp32 and a tenth in bf16.
    """

    alone = 4

    def __init__(self, weight: Tensor):
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)

    def product(self, input: Tensor, bias: Tensor | None) -> Tensor:
        if input.numel() > input.shape[-1]:
            return ONEDNN_PRODUCT(input, self._weight, bias, "none", [], "")
        return ONEDNN_PRODUCT(input.expand(self.alone, *input.shape), self._weight, bias, "none", [], "")[0]

    def dense(self) -> Tensor:
        return self._weight.to_dense()


class PackedLinear(nn.Linear):
    """A linear layer with the weights of another, without gradient.

    A plain layer sorts its weights anew in each call, which for a handful of rows takes as long as the product.
    Packed weights cannot be written: who wants to change a layer, or computes with its weights, takes it `unpacked`.
    """

    def __init__(self, layer: nn.Linear, form: Callable[[Tensor], Packed] = OneDnn):
        nn.Module.__init__(self)  # nn.Linear would make a weight of its own
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.register_parameter("bias", layer.bias)
        self._packed = form(layer.weight)

    @property
    def alone(self) -> int:
        """Rows that a single one is computed as."""
        return self._packed.alone

    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]  # a copy, made when asked for
        """The weights in their plain order, (out features, in features), to be read only."""
        return self._packed.dense()

    def unpacked(self) -> nn.Linear:
        """A plain layer with a copy of the weights and the bias."""
        layer = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        layer.weight = nn.Parameter(self.weight, requires_grad=False)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.detach().clone(), requires_grad=False)
        return layer.train(self.training)

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Linear:
        """A plain layer: a packed weight cannot be copied, and a copy is made to be changed."""
        return self.unpacked()

    def holds(self, layer: nn.Linear) -> bool:
        """Whether weights and bias are those of `layer`, bit for bit."""
        biases = (self.bias, layer.bias)
        same = biases == (None, None) if None in biases else torch.equal(*biases)
        return same and torch.equal(self.weight, layer.weight)

    def forward(self, input: Tensor) -> Tensor:
        """(…, in features) -> (…, out features)."""
        return self._packed.product(input, self.bias)


def packed_dtypes() -> set[torch.dtype]:
    """The dtypes of weights that oneDNN multiplies on this CPU."""
    if not torch.backends.mkldnn.is_available():
        return set()
    return {torch.float32, *([torch.bfloat16] if torch.ops.mkldnn._is_mkldnn_bf16_supported() else [])}


def multiplies_bf16() -> bool:
    """Whether oneDNN has instructions of this CPU for bf16, and need not compute it by way of fp32."""
    capabilities = torch.cpu.get_capabilities()
    has_bf16 = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
    return has_bf16 and torch.bfloat16 in packed_dtypes()


@torch.no_grad()
def pack(model: nn.Module) -> None:
    """Put `PackedLinear` in the place of the plain linear layers on a CPU whose dtype oneDNN multiplies there."""
    dtypes = packed_dtypes()
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear and layer.weight.device.type == "cpu" and layer.weight.dtype in dtypes:
                setattr(parent, name, PackedLinear(layer))


@torch.no_grad()
def unpack(model: nn.Module, wanted: Callable[[str], bool]) -> dict[nn.Linear, PackedLinear]:
    """Put plain layers in the place of the packed ones whose path is `wanted`: each, and the one it stands for."""
    plain: dict[nn.Linear, PackedLinear] = {}
    for path, parent in list(model.named_modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, PackedLinear) and wanted(f"{path}.{name}" if path else name):
                unpacked = layer.unpacked()
                plain[unpacked] = layer
                setattr(parent, name, unpacked)
    return plain


@torch.no_grad()
def pack_again(model: nn.Module, plain: dict[nn.Linear, PackedLinear], may: Callable[[nn.Module, str], bool]) -> None:
    """Undo `unpack` where nothing changed, so that no weight is held twice; what changed is packed for itself.

    `may(parent, name)` says whether a layer is only ever called, and never computed with otherwise.
    """
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if not isinstance(layer, nn.Linear) or layer not in plain or not may(parent, name):
                continue
            setattr(parent, name, plain[layer] if plain[layer].holds(layer) else PackedLinear(layer))
