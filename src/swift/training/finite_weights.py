"""Whether all weights of a model are numbers: looked at where what it gives is none."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from swift.core.errors import CheckFailed
from swift.core.log import log

ANOTHER_COPY = "take another copy of the model, or another --dtype if its numbers are too large for this one"


def broken_weight(weights: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first of named weights with values that are infinite or not a number, and how many they are."""
    for name, weight in weights:
        if weight.is_floating_point() and weight.element_size() > 1:  # isfinite knows no 8-bit floats
            values = int((~torch.isfinite(weight)).sum())
            if values:
                return f"{name} ({values} of {weight.numel()} values)"
    return None


def require_finite_weights(model: nn.Module, answer: Tensor) -> None:
    """Raise CheckFailed for a weight that is not a number, where the `answer` of a model just loaded is none."""
    if torch.isfinite(answer).all():
        return
    broken = broken_weight(model.named_parameters())
    if broken is not None:
        raise CheckFailed("the model has a weight that is not a number", where=broken, next=ANOTHER_COPY)
    log.warning("what the model gives is not a number, though its weights are: try another --dtype")
