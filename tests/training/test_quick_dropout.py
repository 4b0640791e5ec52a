"""Dropout on a CPU is nn.Dropout's: the chance, the scale, the gradient, the seed; and nothing when answering."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from swift.training.quick_dropout import quicken_dropout


def _dropout(p: float) -> nn.Module:
    layer = nn.Sequential(nn.Dropout(p))
    model = nn.ModuleList([layer])
    quicken_dropout(model)
    assert type(layer[0]) is not nn.Dropout
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_elements_are_dropped_by_chance_and_the_others_scaled(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, ones = _dropout(p), torch.ones(3, 501, 333, dtype=dtype, requires_grad=True)
    answer = layer(ones)
    gone = answer == 0
    # 0.5 M draws: four standard deviations are below 0.003; neighbours must be independent as well.
    assert abs(gone.float().mean().item() - p) < 0.003
    assert abs((gone[..., 1:] & gone[..., :-1]).float().mean().item() - p * p) < 0.003
    assert torch.allclose(
        answer[~gone].float(), torch.tensor(1 / (1 - p)), rtol=1e-4 if dtype is torch.float32 else 1e-2
    )
    answer.sum().backward()
    assert ones.grad is not None
    assert torch.equal(ones.grad, answer)
    assert not torch.equal(layer(ones), answer)
    torch.manual_seed(0)
    assert torch.equal(layer(ones), answer)


@pytest.mark.parametrize("p", [0.0, 1e-9, 0.3, 1.0])
def test_the_edges_are_those_of_torch(p: float) -> None:
    layer, ones = _dropout(p), torch.ones(7)
    assert torch.equal(layer.eval()(ones), ones)
    if p != 0.3:
        assert torch.equal(layer.train()(ones), ones * (p < 1))
        assert layer(torch.ones(0)).shape == (0,)
