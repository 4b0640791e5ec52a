"""The formulas of PPO, over answers (R, T) with a mask (R, T) of 1 for real tokens and 0 behind the end of an answer.

Nothing behind the end counts, whatever stands there: results are 0 there, and means are over real tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-8
TINY_DEVIATION = 1e-4
"""Added to the standard deviation of rewards, as TRL and later ms-swift do."""


def shaped_rewards(log_probs: Tensor, ref_log_probs: Tensor, scores: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """(R, T): minus `kl_coef` times log(policy / reference) at each token, plus the score (R) at the last real one.

    arXiv 1909.08593, equation 2, spread over the tokens. An answer without a token has no reward.
    """
    rewards = -kl_coef * _masked(log_probs - ref_log_probs, mask)
    lengths = mask.sum(1).long()
    (some,) = lengths.nonzero(as_tuple=True)
    rewards[some, lengths[some] - 1] += scores[some].to(rewards.dtype)
    return rewards


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Scalar: the mean over real tokens."""
    return _masked(values, mask).sum() / mask.sum()


def whiten(values: Tensor, mask: Tensor, *, keep_mean: bool = False) -> Tensor:
    """(R, T): values with the variance 1 over all real tokens (n - 1 below), and the mean 0 or as it was.

    One token alone has no variance; its value stays.
    """
    count = mask.sum()
    if count < 2:
        return _masked(values, mask)
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean).square(), mask) * count / (count - 1)
    white = (values - mean) * torch.rsqrt(variance + TINY)
    return _masked(white + mean if keep_mean else white, mask)


def advantages(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages by generalized estimation (arXiv 1506.02438, equation 16) and returns, (R, T) each.

    The value behind the last real token is 0: an answer ends there.
    """
    values = _masked(values, mask)
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    deltas = _masked(rewards + gamma * following - values, mask)
    reversed_: list[Tensor] = []
    last = torch.zeros_like(deltas[:, 0])
    for place in range(deltas.shape[1] - 1, -1, -1):
        last = deltas[:, place] + gamma * lam * last
        reversed_.append(last)
    estimates = _masked(torch.stack(reversed_[::-1], dim=1), mask)
    return estimates, _masked(estimates + values, mask)


def policy_losses(
    log_probs: Tensor, old_log_probs: Tensor, advantage: Tensor, cliprange: float, above: float | None = None
) -> tuple[Tensor, Tensor]:
    """The clipped loss of each token (arXiv 1707.06347, equation 7), and whether clipping decided it; any shape.

    `above` is how far the ratio may rise over 1 where that is not `cliprange` (DAPO, arXiv 2503.14476, equation 10).
    """
    ratio = (log_probs - old_log_probs).exp()
    free = -advantage * ratio
    clipped = -advantage * ratio.clamp(1 - cliprange, 1 + (cliprange if above is None else above))
    return torch.maximum(free, clipped), clipped > free


def kl_to_reference(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """An estimate of KL(policy, reference) at each token that is never negative (DeepSeekMath, arXiv 2402.03300,
    equation 4); any shape."""
    difference = ref_log_probs - log_probs
    return difference.exp() - difference - 1


def group_advantages(rewards: Tensor, generations: int, scale: str) -> Tensor:
    """(R) for rewards (R), of which `generations` side by side are answers to one prompt: less the mean of the group.

    `scale` divides by the standard deviation (n - 1 below) of the `group` (DeepSeekMath, arXiv 2402.03300, section
    4.1.2), of the `batch`, or by `none` (Dr. GRPO, arXiv 2503.20783). Equal rewards give exactly 0.
    """
    groups = rewards.view(-1, generations)
    centred = torch.where(equal(groups)[:, None], torch.zeros_like(groups), groups - groups.mean(1, keepdim=True))
    if scale == "group":
        centred = centred / (groups.std(1, keepdim=True) + TINY_DEVIATION)
    elif scale == "batch":
        centred = centred / (rewards.std() + TINY_DEVIATION)
    return centred.reshape(-1)


def equal(groups: Tensor) -> Tensor:
    """(G) whether all rewards (G, N) of a group are the same."""
    return groups.amax(1) == groups.amin(1)


def value_losses(values: Tensor, old_values: Tensor, returns: Tensor, cliprange: float) -> tuple[Tensor, Tensor]:
    """Half the clipped squared error of each token, and whether clipping decided it; any shape."""
    near = torch.clamp(values, old_values - cliprange, old_values + cliprange)
    free, clipped = (values - returns).square(), (near - returns).square()
    return 0.5 * torch.maximum(free, clipped), clipped > free


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    """0 where the mask is: a product would keep what is not a number."""
    return torch.where(mask.bool(), values, torch.zeros_like(values))
