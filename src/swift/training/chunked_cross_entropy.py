"""Linear layer and cross-entropy in one step, chunk by chunk, so that the logits of a batch never exist as a whole.

The gradient is made in the forward pass, from logits that are at hand anyway: two matrix products a chunk for a frozen
head, three for a trained one, the same number the plain way needs. At a vocabulary of 50,000 and 2,000 labels the
plain way holds 400 MB of logits, three times over; a chunk here holds 50 MB.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 48 * 2**20
"""Size of the logits of one chunk in fp32: big enough to fill the matrix units, small beside the activations."""


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sum of weighted cross-entropies of `hidden @ weight.T + bias`, and which labels were the likeliest.

    hidden (N, H), weight (V, H), bias (V) or None, labels (N) in [0, V), weights (N) or None for all ones.
    -> loss (fp32 scalar, differentiable in hidden, weight and bias), hits (N, bool).
    """
    return _LinearCrossEntropy.apply(hidden, weight, bias, labels, weights)  # type: ignore[return-value]


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        loss = torch.zeros((), dtype=_at_least_fp32(hidden), device=hidden.device)
        hits = torch.empty_like(labels, dtype=torch.bool)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=_at_least_fp32(weight)) if needs_weight else None
        grad_bias = torch.zeros_like(bias, dtype=_at_least_fp32(bias)) if needs_bias and bias is not None else None

        rows = max(1, CHUNK_BYTES // (4 * weight.shape[0]))
        for start in range(0, labels.numel(), rows):
            part = slice(start, start + rows)
            h, y = hidden[part].to(weight.dtype), labels[part, None]
            w = None if weights is None else weights[part, None].to(loss.dtype)
            logits = torch.nn.functional.linear(h, weight, bias).to(loss.dtype)
            at_label = logits.gather(1, y)
            highest = logits.amax(1, keepdim=True)
            hits[part] = (at_label == highest).squeeze(1)
            exps = logits.sub_(highest).exp_()
            total = exps.sum(1, keepdim=True)
            nll = total.log() + highest - at_label
            loss += (nll if w is None else nll * w).sum()

            # d loss / d logits = scale * exps - w at the label; it is used in two parts and never stored
            scale = total.reciprocal() if w is None else w / total
            if grad_hidden is not None:
                at_labels = weight[y[:, 0]].to(loss.dtype)
                mean_row = (exps.to(weight.dtype) @ weight).to(loss.dtype)
                grad_hidden[part] = (scale * mean_row - (at_labels if w is None else w * at_labels)).to(hidden.dtype)
            if grad_weight is not None:
                grad_weight.addmm_(exps.T, scale * h.to(loss.dtype))
                grad_weight.index_add_(0, y[:, 0], (h if w is None else w * h).to(grad_weight.dtype), alpha=-1)
            if grad_bias is not None:
                grad_bias += (exps * scale).sum(0)
                grad_bias.index_add_(0, y[:, 0], torch.ones_like(nll[:, 0]) if w is None else w[:, 0], alpha=-1)

        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
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


def _at_least_fp32(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
