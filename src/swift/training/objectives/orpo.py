"""Odds ratio preference optimization (arXiv 2403.07691): SFT on the chosen answer, and its odds over the other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from swift.plan.rlhf import LossPlan
from swift.training.objectives import Objective, Setting
from swift.training.objectives.pairs import Pairs, Terms
from swift.training.objectives.preference import build_pairs


def build(setting: Setting) -> Objective:
    """The objective of `--rlhf_type orpo`."""
    return build_pairs(setting, orpo)


def orpo(pairs: Pairs, plan: LossPlan, shift: Tensor) -> Terms:
    """-beta log sigmoid(log odds ratio), equations 4 and 7, on mean log-probabilities; the nll comes on top."""
    pairs = pairs.per_token()
    log_odds = pairs.chosen - pairs.rejected - (log1mexp(pairs.chosen) - log1mexp(pairs.rejected))
    ratio = logsigmoid(log_odds)
    return Terms(
        -plan.beta * ratio,
        plan.beta * pairs.chosen,
        plan.beta * pairs.rejected,
        True,
        {"log_odds_ratio": ratio, "log_odds_chosen": log_odds},
    )


def log1mexp(log_p: Tensor) -> Tensor:
    """log(1 - p) of a log-probability, exact near p = 1 and finite at it (where it would be minus infinity)."""
    log_p = log_p.clamp(max=-torch.finfo(log_p.dtype).eps)
    return torch.where(log_p > -0.6931472, torch.log(-torch.expm1(log_p)), torch.log1p(-torch.exp(log_p)))
