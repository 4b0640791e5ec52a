"""The loss of an evaluation once more: the formulas of papers in plain numbers, over what the server's engine tells.

Nothing of training takes part but the rows: no batch, no objective, and no reference that it keeps. What all layouts of
training have in common, and could have wrong together, shows here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from swift.checking.served import Served, Weighed, served_model
from swift.checking.subject import Subject
from swift.plan.methods import METHODS
from swift.plan.rlhf import LossPlan
from swift.prompts.types import IGNORED
from swift.training.preference_batches import end

Rows = Sequence[dict[str, Any]]
Ask = Callable[[Rows], Sequence[Weighed]]
Ends = tuple[Weighed, Weighed]
"""The chosen and the rejected answer of a pair."""


def why_not(subject: Subject) -> str | None:
    """Why there is nothing to compute by hand for a run; None where there is."""
    alignment, images = subject.plan.alignment, subject.prepared.images
    if images is not None and (images.family.opening or alignment is not None):
        return "media of pairs, and answers of a decoder, are not weighed by hand"
    if alignment is None or METHODS[subject.plan.method].scores:
        return None
    if alignment.loss.loss_type not in (*PAIRED, "kto", "apo_zero_unpaired"):
        return f"the loss {alignment.loss.loss_type} is not computed by hand"
    if alignment.reference is not None and alignment.reference.kind == "start":
        return "the reference is what the tuner starts with, which no checkpoint has"
    return None


def cornered(subject: Subject, rows: Rows) -> list[int]:
    """The rows whose loss need not show all its terms after a few steps, by their numbers.

    KTO's KL counts from 0 up, and in opposite ways for good and bad answers: rows of one label. A pair that is far
    enough apart is nothing to a hinge.
    """
    loss_type = None if subject.plan.alignment is None else subject.plan.alignment.loss.loss_type
    if loss_type == "hinge":
        return list(range(len(rows)))
    if loss_type != "kto":
        return []
    labels = [bool(row["label"]) for row in rows]
    more = labels.count(True) * 2 >= len(labels)
    return [number for number, label in enumerate(labels) if label is more]


def beyond_the_corner(subject: Subject, rows: Rows) -> Rows:
    """What has to become likelier until the loss of cornered rows shows all its terms."""
    if subject.plan.method == "kto":
        return _mixed_up(rows, subject.plan.data.max_length)
    return [end(row, "rejected_") for row in rows]


def by_hand(subject: Subject, served: Served, rows: Rows, trained: Ask | None = None) -> float:
    """The loss over all rows, by the checkpoint that is served, and by the reference served as the base that it is.

    `trained` answers in the place of the checkpoint.
    """
    ask_trained = trained or served.weighed
    alignment = subject.plan.alignment
    if alignment is None:
        weighed = ask_trained(rows)
        by_number = subject.plan.train.group.loss_name == "loss-scale"
        return -_sum(weighed) / sum(one.tokens if by_number else one.weight for one in weighed)
    loss = alignment.loss
    if METHODS[subject.plan.method].scores:
        scores = [served.scores([end(row, prefix) for row in rows]) for prefix in ("chosen_", "rejected_")]
        return _mean([_softplus(rejected - chosen) for chosen, rejected in zip(*scores, strict=True)])
    with _reference(subject, served) as ask:
        if subject.plan.method == "kto":
            return _unpaired(loss, ask_trained, ask, rows, subject.plan.data.max_length)
        pairs, reference = _pairs(ask_trained, rows), _pairs(ask, rows)
    compared = PAIRED[loss.loss_type]
    per_pair = [compared(mine, theirs, loss) for mine, theirs in zip(pairs, reference, strict=True)]
    chosen = [pair[0] for pair in pairs]
    return _mean(per_pair) - loss.nll_weight * _sum(chosen) / sum(one.weight for one in chosen)


def _nothing(rows: Rows) -> list[Weighed]:
    """Of a loss without a reference."""
    return [Weighed(0.0, 1.0, 1) for _ in rows]


@contextmanager
def _reference(subject: Subject, served: Served) -> Iterator[Ask]:
    """Whoever answers for the reference: the base in the same engine, or a model that is loaded for it."""
    assert subject.plan.alignment is not None
    reference = subject.plan.alignment.reference
    if reference is None:
        yield _nothing
    elif reference.kind == "adapter off" and served.adapter is not None:
        yield partial(served.weighed, adapted=False)
    else:
        with served_model(subject, reference.model or subject.plan.model) as other:
            yield other.weighed


def _pairs(ask: Ask, rows: Rows) -> list[Ends]:
    chosen, rejected = (ask([end(row, prefix) for row in rows]) for prefix in ("chosen_", "rejected_"))
    return list(zip(chosen, rejected, strict=True))


# The losses of a pair, each as its paper writes it.


def _logistic(mine: Ends, theirs: Ends, loss: LossPlan) -> float:
    """DPO (arXiv 2305.18290, equation 7) and, without a reference, CPO (arXiv 2401.08417, equation 3)."""
    return _smoothed(loss.beta * _margin(mine, theirs), loss.label_smoothing)


def _hinge(mine: Ends, theirs: Ends, loss: LossPlan) -> float:
    return max(0.0, 1 - loss.beta * _margin(mine, theirs))


def _squared(mine: Ends, theirs: Ends, loss: LossPlan) -> float:
    """IPO (arXiv 2310.12036, equation 17), on means over tokens."""
    chosen, rejected = ((own.log_prob - other.log_prob) / own.weight for own, other in zip(mine, theirs, strict=True))
    return (chosen - rejected - 1 / (2 * loss.beta)) ** 2


def _robust(mine: Ends, theirs: Ends, loss: LossPlan) -> float:
    """Robust DPO (arXiv 2403.00409, equation 9)."""
    logit, flipped = loss.beta * _margin(mine, theirs), loss.label_smoothing
    return ((1 - flipped) * _softplus(-logit) - flipped * _softplus(logit)) / (1 - 2 * flipped)


def _reverse_kl(mine: Ends, theirs: Ends, loss: LossPlan) -> float:
    """EXO of two answers (arXiv 2402.00856, equation 16)."""
    logit, rest = loss.beta * _margin(mine, theirs), loss.label_smoothing
    better = math.exp(-_softplus(-logit)) * (-_softplus(-logit) - math.log(1 - rest))
    return better + math.exp(-_softplus(logit)) * (-_softplus(logit) - math.log(rest))


def _noise_contrastive(mine: Ends, theirs: Ends, loss: LossPlan) -> float:
    """NCA of two answers (arXiv 2402.05369)."""
    chosen, rejected = _rewards(mine, theirs, loss)
    return _softplus(-chosen) + _softplus(chosen) / 2 + _softplus(rejected) / 2


def _self_play(mine: Ends, theirs: Ends, loss: LossPlan) -> float:
    """SPPO (arXiv 2405.00675, equation 4.7), one answer always winning: its log-ratio goes to 1 / (2 beta)."""
    chosen, rejected = (reward / loss.beta for reward in _rewards(mine, theirs, loss))
    return (chosen - 1 / (2 * loss.beta)) ** 2 + (rejected + 1 / (2 * loss.beta)) ** 2


def _anchored_up(mine: Ends, theirs: Ends, loss: LossPlan) -> float:
    """APO-zero (arXiv 2408.06266, equation 7)."""
    chosen, rejected = _rewards(mine, theirs, loss)
    return math.exp(-_softplus(chosen)) + math.exp(-_softplus(-rejected))


def _anchored_down(mine: Ends, theirs: Ends, loss: LossPlan) -> float:
    """APO-down (arXiv 2408.06266, equation 8)."""
    chosen, rejected = _rewards(mine, theirs, loss)
    return math.exp(-_softplus(-chosen)) + math.exp(-_softplus(chosen - rejected))


def _simpo(mine: Ends, theirs: Ends, loss: LossPlan) -> float:
    """SimPO (arXiv 2405.14734, equation 6)."""
    chosen, rejected = (own.log_prob / own.weight for own in mine)
    return _smoothed(loss.beta * (chosen - rejected) - loss.simpo_gamma, loss.label_smoothing)


def _odds_ratio(mine: Ends, theirs: Ends, loss: LossPlan) -> float:
    """ORPO (arXiv 2403.07691, equations 4 and 7)."""
    chosen, rejected = (own.log_prob / own.weight for own in mine)
    log_odds = (chosen - _log_rest(chosen)) - (rejected - _log_rest(rejected))
    return loss.beta * _softplus(-log_odds)


PAIRED: Mapping[str, Callable[[Ends, Ends, LossPlan], float]] = {
    "sigmoid": _logistic,
    "hinge": _hinge,
    "ipo": _squared,
    "robust": _robust,
    "exo_pair": _reverse_kl,
    "nca_pair": _noise_contrastive,
    "sppo_hard": _self_play,
    "apo_zero": _anchored_up,
    "apo_down": _anchored_down,
    "simpo": _simpo,
    "orpo": _odds_ratio,
}
"""By loss type."""


def _unpaired(loss: LossPlan, ask: Ask, reference: Ask, rows: Rows, limit: int | None) -> float:
    """KTO (arXiv 2402.01306, equations 7 and 8), all rows in one micro-batch; APO-zero is the same without a KL."""
    kl = 0.0
    if loss.loss_type == "kto":
        kl = max(0.0, _mean(_ratios(ask, reference, _mixed_up(rows, limit))))
    losses = []
    for row, ratio in zip(rows, _ratios(ask, reference, rows), strict=True):
        sign, weight = (1, loss.desirable_weight) if row["label"] else (-1, loss.undesirable_weight)
        losses.append(weight * math.exp(-_softplus(loss.beta * sign * (ratio - kl))))
    return _mean(losses)


def _mixed_up(rows: Rows, limit: int | None) -> Rows:
    return [_mixed(row, other, limit) for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)]


def _mixed(row: dict[str, Any], other: dict[str, Any], limit: int | None) -> dict[str, Any]:
    """A prompt with the answer of another row; its beginning goes where both are longer than the limit."""
    prompt, start = row["input_ids"][: _start(row)], _start(other)
    answer = {key: other[key][start:] for key in ("input_ids", "labels", "loss_scale") if other.get(key)}
    if limit is not None:
        prompt = prompt[max(0, len(prompt) + len(answer["input_ids"]) - limit) :]
    before = {"input_ids": prompt, "labels": [IGNORED] * len(prompt), "loss_scale": [0.0] * len(prompt)}
    return {key: [*before[key], *values] for key, values in answer.items()}


def _start(row: dict[str, Any]) -> int:
    return next(place for place, label in enumerate(row["labels"]) if label != IGNORED)


def _ratios(ask: Ask, reference: Ask, rows: Rows) -> list[float]:
    return [mine.log_prob - theirs.log_prob for mine, theirs in zip(ask(rows), reference(rows), strict=True)]


def _rewards(mine: Ends, theirs: Ends, loss: LossPlan) -> tuple[float, float]:
    chosen, rejected = (loss.beta * (own.log_prob - other.log_prob) for own, other in zip(mine, theirs, strict=True))
    return chosen, rejected


def _margin(mine: Ends, theirs: Ends) -> float:
    return (mine[0].log_prob - theirs[0].log_prob) - (mine[1].log_prob - theirs[1].log_prob)


def _smoothed(logit: float, smoothing: float) -> float:
    return (1 - smoothing) * _softplus(-logit) + smoothing * _softplus(logit)


def _log_rest(log_p: float) -> float:
    """log(1 - p); a p of 1 counts as the number before it in fp32, in which training has it."""
    return math.log(-math.expm1(min(log_p, -(2.0**-23))))


def _softplus(value: float) -> float:
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))


def _sum(weighed: Sequence[Weighed]) -> float:
    return sum(one.log_prob for one in weighed)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
