"""Adapter layers (Houlsby et al., arXiv 1902.00751): a narrow two-layer network beside each MLP, and each attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from swift.core.did_you_mean import suggestion
from swift.core.errors import SwiftError
from swift.tuners.added import Added
from swift.tuners.layers import ATTENTION, MLP, parts


class Bottleneck(Added):
    """y = x + W2 act(W1 x + b1) + b2, with W1 (length, width) and W2 (width, length).

    W2 and b2 start at zero, the exact form of the paper's near-identity start, so training starts from the base.
    """

    child = "adapter_default"

    def __init__(self, width: int, settings: Mapping[str, Any]):
        super().__init__(settings)
        self.linear1 = nn.Linear(width, settings["adapter_length"])
        self.act = _activation(settings["act_layer"])
        self.linear2 = nn.Linear(settings["adapter_length"], width)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.zeros_(self.linear1.bias)
        nn.init.zeros_(self.linear2.weight)
        nn.init.zeros_(self.linear2.bias)

    def forward(self, output: Tensor) -> Tensor:
        """See Added."""
        change = self.linear2(self.act(self.linear1(output.to(self.linear1.weight.dtype))))
        return output + change.to(output.dtype)


def places(model: PreTrainedModel, settings: Mapping[str, Any]) -> list[str]:
    """The MLP of each layer, and its attention where the settings say so."""
    return [*parts(model, MLP), *(parts(model, ATTENTION) if settings["after_attention"] else [])]


def _activation(name: str) -> nn.Module:
    """A new module each, as some have weights."""
    if name not in ACT2FN:
        raise SwiftError(
            f"--adapter_act does not know {name!r}",
            where="--adapter_act",
            next=suggestion(name, ACT2FN) or f"one of {', '.join(sorted(ACT2FN))}",
        )
    return ACT2FN[name]
