"""Contrastive preference optimization (arXiv 2401.08417) and SimPO (arXiv 2405.14734): no reference model."""

from __future__ import annotations

import torch
from torch import Tensor

from swift.plan.rlhf import LossPlan
from swift.training.objectives import Objective, Setting
from swift.training.objectives.pairs import Pairs, Terms, smoothed
from swift.training.objectives.preference import build_pairs


def build(setting: Setting) -> Objective:
    """The objective of `--rlhf_type cpo` and `simpo`."""
    return build_pairs(setting, cpo)


def cpo(pairs: Pairs, plan: LossPlan, shift: Tensor) -> Terms:
    """Losses on the difference of log-probabilities: sums for sigmoid and hinge, means over tokens for ipo and simpo.

    CPO: equation 3 of its paper (beta log p takes the place of the log-ratio). SimPO: equation 6, gamma being absolute.
    """
    per_token = plan.loss_type in ("ipo", "simpo")
    if per_token:
        pairs = pairs.per_token()
    margin = pairs.chosen - pairs.rejected
    if plan.loss_type == "hinge":
        losses = torch.relu(1 - plan.beta * margin)
    elif plan.loss_type == "ipo":
        losses = (margin - 1 / (2 * plan.beta)).square()
    elif plan.loss_type == "simpo":
        losses = smoothed(plan.beta * margin - plan.simpo_gamma, plan.label_smoothing)
    else:
        losses = smoothed(plan.beta * margin, plan.label_smoothing)
    return Terms(losses, plan.beta * pairs.chosen, plan.beta * pairs.rejected, per_token)
