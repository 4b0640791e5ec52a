"""Packed linear layers compute what the plain ones do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from swift.engines.packed_linear import PackedLinear, pack


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 48), (3, 48), (2, 7, 48), (1, 300, 48)])
@torch.inference_mode()
def test_the_same_numbers(bias: bool, shape: tuple[int, ...]) -> None:
    plain = nn.Linear(48, 100, bias=bias)
    input = torch.randn(shape)
    packed = PackedLinear(plain)
    torch.testing.assert_close(packed(input), plain(input), rtol=1e-5, atol=1e-5)
    strided = torch.randn(*shape[:-1], 96)[..., ::2]
    torch.testing.assert_close(packed(strided), plain(strided), rtol=1e-5, atol=1e-5)
    assert torch.equal(packed.weight, plain.weight)


def test_only_plain_layers_of_dtypes_that_the_cpu_multiplies_are_packed() -> None:
    class Own(nn.Linear):
        pass

    model = nn.ModuleDict({"plain": nn.Linear(4, 4), "narrow": nn.Linear(4, 4, dtype=torch.float16), "own": Own(4, 4)})
    model["nested"] = nn.Sequential(nn.Linear(4, 4, bias=False))
    pack(model)
    packed = [name for name, layer in model.named_modules() if isinstance(layer, PackedLinear)]
    assert packed == ["plain", "nested.0"]
    assert [name for name, _ in model.named_parameters() if name.startswith(("plain", "nested"))] == ["plain.bias"]


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="needs a CPU that multiplies bf16")
@torch.inference_mode()
def test_bf16_is_packed_too() -> None:
    model = nn.Sequential(nn.Linear(64, 48, dtype=torch.bfloat16))
    plain, input = model[0], torch.randn(3, 64, dtype=torch.bfloat16)
    pack(model)
    assert isinstance(model[0], PackedLinear) and torch.equal(model[0].weight, plain.weight)
    torch.testing.assert_close(model[0](input), plain(input), rtol=0.02, atol=0.02)
