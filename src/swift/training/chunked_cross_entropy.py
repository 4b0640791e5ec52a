"""Linear layer and log-softmax in one step, chunk by chunk, so that the logits of a batch never exist as a whole.

The gradient of the hidden states is made in the forward pass, from logits that are at hand anyway: two matrix products
for a frozen head. Its chunks are columns, tokens of the vocabulary, and what is summed over those before is scaled when
a higher logit comes (M. Milakov and N. Gimelshein, Online normalizer calculation for softmax, 2018): few MB of logits
at a time, which stay in a CPU's cache, for 100-1,000 labels 0.75-0.87 of the time that rows take. The gradient of a
trained head needs the whole sum of a row, so that its chunks are rows. Where the sum of the losses is what counts
(`linear_cross_entropy`) there are three products, the number the plain way needs; where later algebra decides what each
log-probability counts (`linear_log_probs`) the logits are made once more on the way back. At a vocabulary of 50,000 and
2,000 labels the plain way holds 400 MB of logits, three times over; a chunk of rows here holds 50 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor

from swift.plan.train import CHUNK_BYTES

COLUMNS = 2048
"""The most columns of a frozen head at a time on a CPU: with some hundred labels, logits that stay in its cache."""


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
class _Losses:
    """The cross-entropies of N labels."""

    nll: Tensor  # (N, 1)
    hits: Tensor  # (N), whether the label has the highest logit
    hidden_gradient: Tensor | None  # (N, H): of each by its own hidden state


def _by_columns(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, gradient: bool) -> _Losses:
    """Those of a frozen head."""
    h, labels = hidden.to(weight.dtype), labels[:, None]
    dtype = _at_least_fp32(hidden)
    highest = torch.full(labels.shape, torch.finfo(dtype).min, dtype=dtype, device=hidden.device)
    total, at_label = torch.zeros_like(highest), torch.zeros_like(highest)
    mean_row = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device) if gradient else None
    width = min(len(weight), max(1, CHUNK_BYTES // (4 * max(1, len(labels)))))
    if hidden.device.type == "cpu":
        width = min(width, COLUMNS)
    buffer = torch.empty(len(labels) * width, dtype=weight.dtype, device=weight.device)
    for start in range(0, len(weight), width):
        columns = weight[start : start + width]
        logits = buffer[: len(labels) * len(columns)].view(len(labels), len(columns))
        torch.mm(h, columns.T, out=logits)
        if bias is not None:
            logits += bias[start : start + width]
        logits = logits.to(dtype)
        here = (labels >= start) & (labels < start + width)
        found = logits.gather(1, (labels - start).clamp(0, len(columns) - 1))
        at_label = torch.where(here, found, at_label)
        before, highest = highest, torch.maximum(highest, logits.amax(1, keepdim=True))
        scale = (before - highest).exp()
        exps = logits.sub_(highest).exp_()
        total = total * scale + exps.sum(1, keepdim=True)
        if mean_row is not None:
            _add_product(mean_row.mul_(scale), exps.to(weight.dtype), columns)
    if mean_row is not None:
        mean_row.div_(total).sub_(weight[labels[:, 0]])
    return _Losses(total.log() + highest - at_label, (at_label == highest).squeeze(1), mean_row)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, in one step where all are of one dtype."""
    if total.dtype == right.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


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
    rows = ceil(labels.numel() / max(1, ceil(labels.numel() / rows))) or 1  # products of few rows are slow
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
        ctx.dtypes = weight.dtype, None if bias is None else bias.dtype
        if not (needs_weight or needs_bias):
            losses = _by_columns(hidden, weight, bias, labels, needs_hidden)
            w = torch.ones_like(losses.nll) if weights is None else weights[:, None].to(losses.nll.dtype)
            unit = losses.hidden_gradient
            ctx.save_for_backward(None if unit is None else unit.mul_(w).to(hidden.dtype), None, None)
            ctx.mark_non_differentiable(losses.hits)
            return (losses.nll * w).sum(), losses.hits
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
            head.add(chunk, w)
        ctx.save_for_backward(grad_hidden, head.weight, head.bias)
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
        if not (needs_weight or needs_bias):
            losses = _by_columns(hidden, weight, bias, labels, needs_hidden)
            unit = losses.hidden_gradient
            ctx.save_for_backward(None if unit is None else unit.neg_().to(hidden.dtype), *(None,) * 4)
            return -losses.nll[:, 0]
        log_probs = torch.empty(labels.shape, dtype=_at_least_fp32(hidden), device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        for chunk in _chunks(hidden, weight, bias, labels):
            log_probs[chunk.part] = -chunk.nll[:, 0]
            if grad_hidden is not None:
                grad_hidden[chunk.part] = chunk.hidden_gradient(weight, -1.0).to(hidden.dtype)
        ctx.save_for_backward(grad_hidden, hidden, weight, bias, labels)
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
