from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from swift.training import chunked_cross_entropy as loss_module
from swift.training.chunked_cross_entropy import linear_cross_entropy, linear_log_probs

N, H, V = 37, 16, 101


def tensors(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(N, H, dtype=dtype, requires_grad=True)
    weight = torch.randn(V, H, dtype=dtype, requires_grad=True)
    bias = torch.randn(V, dtype=dtype, requires_grad=True)
    return hidden, weight, bias, torch.randint(0, V, (N,)), torch.rand(N, dtype=dtype)


@pytest.mark.parametrize("rows", [1, 8, N, 1000])
@pytest.mark.parametrize("weighted", [True, False])
def test_equals_the_plain_loss_in_value_and_all_gradients(
    rows: int, weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "CHUNK_BYTES", 4 * V * rows)
    hidden, weight, bias, labels, weights = tensors(torch.float64)
    nll = cross_entropy(linear(hidden, weight, bias), labels, reduction="none")
    expected = (nll * weights).sum() if weighted else nll.sum()
    wanted = torch.autograd.grad(expected * 0.3, (hidden, weight, bias))

    value, hits = linear_cross_entropy(hidden, weight, bias, labels, weights if weighted else None)
    got = torch.autograd.grad(value * 0.3, (hidden, weight, bias))

    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
    assert torch.equal(hits, linear(hidden, weight, bias).argmax(1) == labels)


@pytest.mark.parametrize("columns", [1, 7, V, 1000])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_a_frozen_head_by_columns(columns: int, weighted: bool, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "COLUMNS", columns)
    hidden, weight, bias, labels, weights = tensors(torch.float64)
    weight, bias = weight.detach(), bias.detach() if biased else None
    if bias is not None:
        bias[:8] = -torch.inf  # tokens that cannot be, a whole chunk of them
        labels = labels.clamp(min=8)
    logits = linear(hidden * 300, weight, bias)  # far apart, so that what is summed before has to be scaled
    nll = cross_entropy(logits, labels, reduction="none")
    expected = (nll * weights).sum() if weighted else nll.sum()
    (wanted,) = torch.autograd.grad(expected * 0.3, hidden)
    value, hits = linear_cross_entropy(hidden * 300, weight, bias, labels, weights if weighted else None)
    (got,) = torch.autograd.grad(value * 0.3, hidden)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    assert torch.equal(hits, logits.argmax(1) == labels)


@pytest.mark.parametrize("rows", [1, 8, 1000])
@pytest.mark.parametrize("frozen", [True, False])
def test_log_probs_carry_whatever_gradient_later_algebra_gives_each(
    rows: int, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "CHUNK_BYTES", 4 * V * rows)
    hidden, weight, bias, labels, weights = tensors(torch.float64)
    inputs = (hidden,) if frozen else (hidden, weight, bias)
    if frozen:
        weight, bias = weight.detach(), bias.detach()
    plain = -cross_entropy(linear(hidden, weight, bias), labels, reduction="none")
    ours = linear_log_probs(hidden, weight, bias, labels)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    wanted = torch.autograd.grad(torch.sigmoid(plain * weights).sum(), inputs)
    for mine, theirs in zip(torch.autograd.grad(torch.sigmoid(ours * weights).sum(), inputs), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, weight, _, labels, _ = tensors(torch.float32)
    frozen = weight.detach()
    value, _ = linear_cross_entropy(hidden, frozen, None, labels, None)
    value.backward()
    expected = torch.autograd.grad(cross_entropy(linear(hidden, frozen), labels, reduction="sum"), hidden)[0]
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad, expected, rtol=1e-5, atol=1e-6)
    assert frozen.grad is None


def test_bf16_weights_give_the_fp32_loss_to_their_precision() -> None:
    hidden, weight, _, labels, _ = tensors(torch.float32)
    value, _ = linear_cross_entropy(hidden.bfloat16(), weight.detach().bfloat16(), None, labels, None)
    expected = cross_entropy(linear(hidden, weight), labels, reduction="sum")
    assert value.dtype == torch.float32
    assert abs(value.item() / expected.item() - 1) < 0.02


def test_no_label_is_no_loss() -> None:
    hidden, weight, _, _, _ = tensors(torch.float32)
    value, hits = linear_cross_entropy(hidden[:0], weight, None, torch.empty(0, dtype=torch.long), None)
    value.backward()
    assert value.item() == 0
    assert hits.numel() == 0
    assert linear_cross_entropy(hidden[:0], weight.detach(), None, torch.empty(0, dtype=torch.long), None)[0] == 0
