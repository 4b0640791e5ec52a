"""Linear layer and log-softmax in one step, chunk by chunk, so that the logits of a batch never exist as a whole.

The gradient of the hidden states is made in the forward pass, from logits that are at hand anyway. Where the sum of the
losses is what counts (`linear_cross_entropy`) that of the head is too: two matrix products a chunk for a frozen head,
three for a trained one, the same number the plain way needs. Where later algebra decides what each log-probability
counts (`linear_log_probs`), a trained head makes its logits once more on the way back. At a vocabulary of 50,000 and
2,000 labels the plain way holds 400 MB of logits, three times over; a chunk here holds 50 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from swift.plan.train import CHUNK_BYTES


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sum of weighted cross-entropies of `hidden @ weight.T + bias`, and which labels were the likeliest.

    hidden (N, H), weight (V, H), bias (V) or None, labels (N) in [0, V), weights (N) or None for all ones.
    -> loss (fp32 scalar, differentiable in hidden, weight and bias), hits (N, bool).
    """
    return _LinearCrossEntropy.apply(hidden, weight, bias, labels, weights)  # type: ignore[return-value]


def linear_log_probs(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    """Log-probability of each label under `hidden @ weight.T + bias`.

    hidden (N, H), weight (V, H), bias (V) or None, labels (N) in [0, V) -> (N), fp32, differentiable in all three.
    """
    return _LinearLogProbs.apply(hidden, weight, bias, labels)  # type: ignore[return-value]


@dataclass(frozen=True)
class _Chunk:
    """The logits of n labels, as their exponentials divided by that of the highest one."""

    part: slice
    hidden: Tensor  # (n, H) in the dtype of the weight
    labels: Tensor  # (n, 1)
    exps: Tensor  # (n, V)
    total: Tensor  # (n, 1)
    nll: Tensor  # (n, 1)
    hits: Tensor  # (n)

    def hidden_gradient(self, weight: Tensor, w: Tensor | float) -> Tensor:
        """(n, H): of each cross-entropy times `w` by its own hidden state."""
        mean_row = (self.exps.to(weight.dtype) @ weight).to(self.nll.dtype)
        return w / self.total * mean_row - w * weight[self.labels[:, 0]].to(self.nll.dtype)


def _chunks(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Iterator[_Chunk]:
    rows = max(1, CHUNK_BYTES // (4 * weight.shape[0]))
    for start in range(0, labels.numel(), rows):
        part = slice(start, start + rows)
        h, y = hidden[part].to(weight.dtype), labels[part, None]
        logits = torch.nn.functional.linear(h, weight, bias).to(_at_least_fp32(hidden))
        at_label = logits.gather(1, y)
        highest = logits.amax(1, keepdim=True)
        hits = (at_label == highest).squeeze(1)
        exps = logits.sub_(highest).exp_()
        total = exps.sum(1, keepdim=True)
        yield _Chunk(part, h, y, exps, total, total.log() + highest - at_label, hits)


class _HeadGradients:
    """Adds up the gradients of weight and bias over the chunks; None for one that is frozen."""

    def __init__(self, weight: Tensor | None, bias: Tensor | None):
        self.weight = None if weight is None else torch.zeros_like(weight, dtype=_at_least_fp32(weight))
        self.bias = None if bias is None else torch.zeros_like(bias, dtype=_at_least_fp32(bias))

    def add(self, chunk: _Chunk, w: Tensor) -> None:
        """`w` (n, 1) is what each cross-entropy counts."""
        scale, labels = w / chunk.total, chunk.labels[:, 0]
        if self.weight is not None:
            self.weight.addmm_(chunk.exps.T, scale * chunk.hidden.to(scale.dtype))
            self.weight.index_add_(0, labels, (w * chunk.hidden).to(self.weight.dtype), alpha=-1)
        if self.bias is not None:
            self.bias += (chunk.exps * scale).sum(0)
            self.bias.index_add_(0, labels, w[:, 0].to(self.bias.dtype), alpha=-1)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        loss = torch.zeros((), dtype=_at_least_fp32(hidden), device=hidden.device)
        hits = torch.empty_like(labels, dtype=torch.bool)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        head = _HeadGradients(weight if needs_weight else None, bias if needs_bias else None)
        for chunk in _chunks(hidden, weight, bias, labels):
            w = torch.ones_like(chunk.nll) if weights is None else weights[chunk.part, None].to(loss.dtype)
            hits[chunk.part] = chunk.hits
            loss += (chunk.nll * w).sum()
            if grad_hidden is not None:
                grad_hidden[chunk.part] = chunk.hidden_gradient(weight, w).to(hidden.dtype)
            if needs_weight or needs_bias:
                head.add(chunk, w)
        ctx.save_for_backward(grad_hidden, head.weight, head.bias)
        ctx.dtypes = weight.dtype, None if bias is None else bias.dtype
        ctx.mark_non_differentiable(hits)
        return loss, hits

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        factor = grads[0]
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        weight_dtype, bias_dtype = ctx.dtypes
        return (
            None if grad_hidden is None else grad_hidden * factor.to(grad_hidden.dtype),
            None if grad_weight is None else (grad_weight * factor).to(weight_dtype),
            None if grad_bias is None else (grad_bias * factor).to(bias_dtype),
            None,
            None,
        )


class _LinearLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        log_probs = torch.empty(labels.shape, dtype=_at_least_fp32(hidden), device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        for chunk in _chunks(hidden, weight, bias, labels):
            log_probs[chunk.part] = -chunk.nll[:, 0]
            if grad_hidden is not None:
                grad_hidden[chunk.part] = chunk.hidden_gradient(weight, -1.0).to(hidden.dtype)
        again = (hidden, weight, bias, labels) if needs_weight or needs_bias else (None,) * 4
        ctx.save_for_backward(grad_hidden, *again)
        return log_probs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, hidden, weight, bias, labels = ctx.saved_tensors
        needs_weight, needs_bias = ctx.needs_input_grad[1:3]
        factors = grads[0][:, None]
        if grad_hidden is not None:
            grad_hidden = (grad_hidden.to(factors.dtype) * factors).to(grad_hidden.dtype)
        head = _HeadGradients(weight if needs_weight else None, bias if needs_bias else None)
        if needs_weight or needs_bias:
            for chunk in _chunks(hidden, weight, bias, labels):
                head.add(chunk, -factors[chunk.part])
        return (
            grad_hidden,
            None if head.weight is None else head.weight.to(weight.dtype),
            None if head.bias is None else head.bias.to(bias.dtype),
            None,
        )


def _at_least_fp32(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
