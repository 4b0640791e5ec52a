"""The losses of papers over the log-probabilities of whole answers, in plain numbers: one row or pair at a time.

Numbers are scalars of torch in float64, so that the same lines give a loss and what it is differentiated to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swift.plan.rlhf import LossPlan


@dataclass(frozen=True)
class Weighed:
    """What a model thinks of the tokens that a row trains, summed with their weights; or its score, of weight 1."""

    log_prob: Tensor
    weight: float
    tokens: int


Ends = tuple[Weighed, Weighed]
"""The chosen and the rejected answer of a pair."""


def number(value: float) -> Tensor:
    """A number as formulas take it."""
    return torch.tensor(value, dtype=torch.float64)


NOTHING = Weighed(number(0.0), 1.0, 1)
"""Of a loss without a reference."""


def _bradley_terry(mine: Ends, _theirs: Ends, _loss: LossPlan) -> Tensor:
    """Reward models (arXiv 2203.02155, equation 1), over scores."""
    return _softplus(mine[1].log_prob - mine[0].log_prob)


def _logistic(mine: Ends, theirs: Ends, loss: LossPlan) -> Tensor:
    """DPO (arXiv 2305.18290, equation 7) and, without a reference, CPO (arXiv 2401.08417, equation 3)."""
    return _smoothed(loss.beta * _margin(mine, theirs), loss.label_smoothing)


def _hinge(mine: Ends, theirs: Ends, loss: LossPlan) -> Tensor:
    return (1 - loss.beta * _margin(mine, theirs)).clamp(min=0.0)


def _squared(mine: Ends, theirs: Ends, loss: LossPlan) -> Tensor:
    """IPO (arXiv 2310.12036, equation 17), on means over tokens."""
    chosen, rejected = ((own.log_prob - other.log_prob) / own.weight for own, other in zip(mine, theirs, strict=True))
    return (chosen - rejected - 1 / (2 * loss.beta)) ** 2


def _robust(mine: Ends, theirs: Ends, loss: LossPlan) -> Tensor:
    """Robust DPO (arXiv 2403.00409, equation 9)."""
    logit, flipped = loss.beta * _margin(mine, theirs), loss.label_smoothing
    return ((1 - flipped) * _softplus(-logit) - flipped * _softplus(logit)) / (1 - 2 * flipped)


def _reverse_kl(mine: Ends, theirs: Ends, loss: LossPlan) -> Tensor:
    """EXO of two answers (arXiv 2402.00856, equation 16)."""
    logit, rest = loss.beta * _margin(mine, theirs), loss.label_smoothing
    better = torch.exp(-_softplus(-logit)) * (-_softplus(-logit) - math.log(1 - rest))
    return better + torch.exp(-_softplus(logit)) * (-_softplus(logit) - math.log(rest))


def _noise_contrastive(mine: Ends, theirs: Ends, loss: LossPlan) -> Tensor:
    """NCA of two answers (arXiv 2402.05369)."""
    chosen, rejected = _rewards(mine, theirs, loss)
    return _softplus(-chosen) + _softplus(chosen) / 2 + _softplus(rejected) / 2


def _self_play(mine: Ends, theirs: Ends, loss: LossPlan) -> Tensor:
    """SPPO (arXiv 2405.00675, equation 4.7), one answer always winning: its log-ratio goes to 1 / (2 beta)."""
    chosen, rejected = (reward / loss.beta for reward in _rewards(mine, theirs, loss))
    return (chosen - 1 / (2 * loss.beta)) ** 2 + (rejected + 1 / (2 * loss.beta)) ** 2


def _anchored_up(mine: Ends, theirs: Ends, loss: LossPlan) -> Tensor:
    """APO-zero (arXiv 2408.06266, equation 7)."""
    chosen, rejected = _rewards(mine, theirs, loss)
    return torch.exp(-_softplus(chosen)) + torch.exp(-_softplus(-rejected))


def _anchored_down(mine: Ends, theirs: Ends, loss: LossPlan) -> Tensor:
    """APO-down (arXiv 2408.06266, equation 8)."""
    chosen, rejected = _rewards(mine, theirs, loss)
    return torch.exp(-_softplus(-chosen)) + torch.exp(-_softplus(chosen - rejected))


def _classified(mine: Ends, theirs: Ends, loss: LossPlan) -> Tensor:
    """BCO (arXiv 2404.04656): rewards that are shifted say which answer is the better one."""
    chosen, rejected = _rewards(mine, theirs, loss)
    return _softplus(-chosen) + _softplus(rejected)


def _simpo(mine: Ends, theirs: Ends, loss: LossPlan) -> Tensor:
    """SimPO (arXiv 2405.14734, equation 6)."""
    chosen, rejected = (own.log_prob / own.weight for own in mine)
    return _smoothed(loss.beta * (chosen - rejected) - loss.simpo_gamma, loss.label_smoothing)


def _odds_ratio(mine: Ends, theirs: Ends, loss: LossPlan) -> Tensor:
    """ORPO (arXiv 2403.07691, equations 4 and 7)."""
    chosen, rejected = (own.log_prob / own.weight for own in mine)
    log_odds = (chosen - _log_rest(chosen)) - (rejected - _log_rest(rejected))
    return loss.beta * _softplus(-log_odds)


PAIRED: Mapping[str, Callable[[Ends, Ends, LossPlan], Tensor]] = {
    "sigmoid": _logistic,
    "aot": _logistic,
    "aot_pair": _logistic,
    "hinge": _hinge,
    "ipo": _squared,
    "robust": _robust,
    "exo_pair": _reverse_kl,
    "nca_pair": _noise_contrastive,
    "bco_pair": _classified,
    "sppo_hard": _self_play,
    "apo_zero": _anchored_up,
    "apo_down": _anchored_down,
    "simpo": _simpo,
    "orpo": _odds_ratio,
    "rm": _bradley_terry,
}
"""By loss type, over pairs as `arranged` leaves them."""


def paired(mine: Sequence[Ends], theirs: Sequence[Ends], loss: LossPlan, shift: float = 0.0) -> Tensor:
    """The mean loss of all pairs of a micro-batch; `shift` is the mean of the rewards so far, where a loss has one."""
    mine, theirs = _arranged(mine, theirs, loss, shift)
    formula = PAIRED[loss.loss_type]
    return mean([formula(own, other, loss) for own, other in zip(mine, theirs, strict=True)])


def _arranged(
    mine: Sequence[Ends], theirs: Sequence[Ends], loss: LossPlan, shift: float
) -> tuple[Sequence[Ends], Sequence[Ends]]:
    """The pairs as the loss puts them together: AOT (arXiv 2406.05882) compares the least with the least, and so on."""
    if loss.loss_type == "aot":  # margins of the model with margins of the reference
        margins = (sorted(one[0].log_prob - one[1].log_prob for one in pairs) for pairs in (mine, theirs))
        own, other = ([(_as_end(margin), NOTHING) for margin in each] for each in margins)
        return own, other
    if loss.loss_type == "aot_pair":  # log-ratios of the chosen with those of the rejected
        pairs = list(zip(mine, theirs, strict=True))
        sides = (sorted(own[k].log_prob - other[k].log_prob for own, other in pairs) for k in (0, 1))
        return [(_as_end(a), _as_end(b)) for a, b in zip(*sides, strict=True)], [(NOTHING, NOTHING)] * len(pairs)
    if loss.loss_type == "bco_pair":
        by = shift / loss.beta
        return mine, [(_as_end(one[0].log_prob + by), _as_end(one[1].log_prob + by)) for one in theirs]
    return mine, theirs


def unpaired(ratios: Sequence[Tensor], good: Sequence[bool], kl: Tensor, loss: LossPlan) -> Tensor:
    """KTO (arXiv 2402.01306, equations 7 and 8) of one micro-batch; APO-zero is the same with a KL of 0."""
    losses = []
    for ratio, is_good in zip(ratios, good, strict=True):
        sign, weight = (1, loss.desirable_weight) if is_good else (-1, loss.undesirable_weight)
        losses.append(weight * torch.exp(-_softplus(loss.beta * sign * (ratio - kl))))
    return mean(losses)


def _as_end(log_prob: Tensor) -> Weighed:
    return Weighed(log_prob, 1.0, 1)


def _rewards(mine: Ends, theirs: Ends, loss: LossPlan) -> tuple[Tensor, Tensor]:
    chosen, rejected = (loss.beta * (own.log_prob - other.log_prob) for own, other in zip(mine, theirs, strict=True))
    return chosen, rejected


def _margin(mine: Ends, theirs: Ends) -> Tensor:
    return (mine[0].log_prob - theirs[0].log_prob) - (mine[1].log_prob - theirs[1].log_prob)


def _smoothed(logit: Tensor, smoothing: float) -> Tensor:
    return (1 - smoothing) * _softplus(-logit) + smoothing * _softplus(logit)


def _log_rest(log_p: Tensor) -> Tensor:
    """log(1 - p); a p of 1 counts as the number before it in fp32, in which training has it."""
    return torch.log(-torch.expm1(log_p.clamp(max=-(2.0**-23))))


def _softplus(value: Tensor) -> Tensor:
    return torch.logaddexp(value, torch.zeros_like(value))


def total(weighed: Sequence[Weighed]) -> Tensor:
    """The log-probability of all of them together."""
    return torch.stack([one.log_prob for one in weighed]).sum()


def mean(values: Sequence[Tensor]) -> Tensor:
    """Of scalars."""
    return torch.stack(list(values)).mean()
