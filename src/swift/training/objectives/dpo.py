"""Direct preference optimization (arXiv 2305.18290) and the losses that share its log-ratios.

Each works on log-ratios, log policy - log reference, of the chosen and the rejected answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from swift.plan.rlhf import LossPlan
from swift.training.objectives import Objective, Setting
from swift.training.objectives.pairs import Pairs, Terms, smoothed
from swift.training.objectives.preference import build_pairs

Loss = Callable[[Pairs, float, float, Tensor], Tensor]
"""(pairs, beta, label smoothing, shift) -> (P,)"""


def build(setting: Setting) -> Objective:
    """The objective of `--rlhf_type dpo`."""
    return build_pairs(setting, dpo)


def sigmoid(pairs: Pairs, beta: float, smoothing: float, shift: Tensor) -> Tensor:
    """DPO; with smoothing, conservative DPO (section 3 of https://ericmitchell.ai/cdpo.pdf)."""
    return smoothed(beta * (pairs.chosen_ratio - pairs.rejected_ratio), smoothing)


def hinge(pairs: Pairs, beta: float, smoothing: float, shift: Tensor) -> Tensor:
    """RSO and SLiC (arXiv 2309.06657, equation 8), with the margin in units of 1 / beta."""
    return torch.relu(1 - beta * (pairs.chosen_ratio - pairs.rejected_ratio))


def ipo(pairs: Pairs, beta: float, smoothing: float, shift: Tensor) -> Tensor:
    """IPO (arXiv 2310.12036, equation 17) with beta as tau, on means over tokens as its authors advise."""
    return (pairs.chosen_ratio - pairs.rejected_ratio - 1 / (2 * beta)).square()


def exo_pair(pairs: Pairs, beta: float, smoothing: float, shift: Tensor) -> Tensor:
    """EXO-pref (arXiv 2402.00856, equation 16): the reverse KL of two answers. It needs a smoothing above 0."""
    logits = beta * (pairs.chosen_ratio - pairs.rejected_ratio)
    won, lost = logsigmoid(logits), logsigmoid(-logits)
    return won.exp() * (won - math.log1p(-smoothing)) + lost.exp() * (lost - math.log(smoothing))


def nca_pair(pairs: Pairs, beta: float, smoothing: float, shift: Tensor) -> Tensor:
    """NCA for pairs (arXiv 2402.05369, appendix A)."""
    won, lost = beta * pairs.chosen_ratio, beta * pairs.rejected_ratio
    return -logsigmoid(won) - 0.5 * logsigmoid(-won) - 0.5 * logsigmoid(-lost)


def robust(pairs: Pairs, beta: float, smoothing: float, shift: Tensor) -> Tensor:
    """Robust DPO (arXiv 2403.00409, equation 9): unbiased where a share `smoothing` of the labels is flipped."""
    logits = beta * (pairs.chosen_ratio - pairs.rejected_ratio)
    return (-logsigmoid(logits) * (1 - smoothing) + logsigmoid(-logits) * smoothing) / (1 - 2 * smoothing)


def bco_pair(pairs: Pairs, beta: float, smoothing: float, shift: Tensor) -> Tensor:
    """BCO on pairs (arXiv 2404.04656): a classifier of answers, its rewards shifted by their running mean."""
    return -logsigmoid(beta * pairs.chosen_ratio - shift) - logsigmoid(shift - beta * pairs.rejected_ratio)


def sppo_hard(pairs: Pairs, beta: float, smoothing: float, shift: Tensor) -> Tensor:
    """SPPO (arXiv 2405.00675, equation 4.7) with win probabilities of 1 and 0."""
    return (pairs.chosen_ratio - 0.5 / beta).square() + (pairs.rejected_ratio + 0.5 / beta).square()


def aot(pairs: Pairs, beta: float, smoothing: float, shift: Tensor) -> Tensor:
    """AOT (arXiv 2406.05882) on pairs: margins of policy and reference, each sorted over the micro-batch."""
    assert pairs.reference_chosen is not None and pairs.reference_rejected is not None
    policy = (pairs.chosen - pairs.rejected).sort().values
    reference = (pairs.reference_chosen - pairs.reference_rejected).sort().values
    return smoothed(beta * (policy - reference), smoothing)


def aot_pair(pairs: Pairs, beta: float, smoothing: float, shift: Tensor) -> Tensor:
    """AOT (arXiv 2406.05882) as for unpaired rows: log-ratios of either side, each sorted over the micro-batch."""
    return smoothed(beta * (pairs.chosen_ratio.sort().values - pairs.rejected_ratio.sort().values), smoothing)


def apo_zero(pairs: Pairs, beta: float, smoothing: float, shift: Tensor) -> Tensor:
    """APO-zero (arXiv 2408.06266, equation 7): for chosen answers that are better than the model's own."""
    return torch.sigmoid(-beta * pairs.chosen_ratio) + torch.sigmoid(beta * pairs.rejected_ratio)


def apo_down(pairs: Pairs, beta: float, smoothing: float, shift: Tensor) -> Tensor:
    """APO-down (arXiv 2408.06266, equation 8): for chosen answers that are worse than the model's own."""
    margin = pairs.chosen_ratio - pairs.rejected_ratio
    return torch.sigmoid(beta * pairs.chosen_ratio) + torch.sigmoid(-beta * margin)


LOSSES: Mapping[str, Loss] = {
    loss.__name__: loss
    for loss in (
        *(sigmoid, hinge, ipo, exo_pair, nca_pair, robust, bco_pair),
        *(sppo_hard, aot, aot_pair, apo_zero, apo_down),
    )
}


def dpo(pairs: Pairs, plan: LossPlan, shift: Tensor) -> Terms:
    """The loss of `plan.loss_type`, and rewards beta log(policy / reference); both per token for IPO."""
    per_token = plan.loss_type == "ipo"
    if per_token:
        pairs = pairs.per_token()
    losses = LOSSES[plan.loss_type](pairs, plan.beta, plan.label_smoothing, shift)
    return Terms(losses, plan.beta * pairs.chosen_ratio, plan.beta * pairs.rejected_ratio, per_token)
