"""The loss of rows once more: the formulas of papers in plain numbers, over what the server's engine tells.

Nothing of training takes part but the rows: no batch, no objective, and no reference that it keeps. What all layouts of
training have in common, and could have wrong together, shows here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor

from swift.checking.formulas import NOTHING, PAIRED, Weighed, mean, number, paired, total, unpaired
from swift.checking.served import Served, served_model
from swift.checking.subject import Subject
from swift.prompts.types import IGNORED
from swift.training.preference_batches import end

Rows = Sequence[dict[str, Any]]
Ask = Callable[[Rows], Sequence[Weighed]]
Shift = Callable[[Sequence[float]], float]


def why_not(subject: Subject) -> str | None:
    """Why there is nothing to compute by hand for a run; None where there is."""
    alignment, images = subject.plan.alignment, subject.prepared.images
    if images is not None and (images.family.opening or alignment is not None):
        return "media of pairs, and answers of a decoder, are not weighed by hand"
    if alignment is None:
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
    return [place for place, label in enumerate(labels) if label is more]


def beyond_the_corner(subject: Subject, rows: Rows) -> Rows:
    """What has to become likelier, and less likely, until the loss of cornered rows shows all its terms."""
    if subject.plan.method == "kto":
        return _mixed_up(rows, subject.plan.data.max_length)
    return [end(row, "rejected_") for row in rows]


@contextmanager
def reference_of(subject: Subject, served: Callable[[], Served]) -> Iterator[Ask]:
    """Whoever answers for the reference: the base in the engine that serves the checkpoint, or a model of its own."""
    reference = None if subject.plan.alignment is None else subject.plan.alignment.reference
    if reference is None:
        yield _nothing
    elif reference.kind == "adapter off" and served().adapter is not None:
        yield partial(served().weighed, adapted=False)
    else:
        with served_model(subject, reference.model or subject.plan.model) as other:
            yield other.weighed


def by_hand(subject: Subject, rows: Rows, ask: Ask, reference: Ask, shift: Shift = lambda rewards: 0.0) -> Tensor:
    """The loss over all rows, as one micro-batch, of whoever is asked, against the reference.

    Of a loss that shifts rewards, `shift` gives the mean so far; it is told those of the rows.
    """
    if subject.plan.alignment is None:
        weighed = ask(rows)
        by_number = subject.plan.train.group.loss_name == "loss-scale"
        return -total(weighed) / sum(one.tokens if by_number else one.weight for one in weighed)
    loss = subject.plan.alignment.loss
    if subject.plan.method == "kto":
        kl = number(0.0)
        if loss.loss_type == "kto":
            mixed = _mixed_up(rows, subject.plan.data.max_length)
            kl = mean(_ratios(ask(mixed), reference(mixed))).detach().clamp(min=0)
        return unpaired(_ratios(ask(rows), reference(rows)), [bool(row["label"]) for row in rows], kl, loss)
    chosen, rejected = ([end(row, prefix) for row in rows] for prefix in ("chosen_", "rejected_"))
    mine = list(zip(ask(chosen), ask(rejected), strict=True))
    theirs = list(zip(reference(chosen), reference(rejected), strict=True))
    by = 0.0
    if loss.loss_type == "bco_pair":
        pairs = list(zip(mine, theirs, strict=True))
        by = shift([loss.beta * float(a[k].log_prob - b[k].log_prob) for a, b in pairs for k in (0, 1)])
    answers = [pair[0] for pair in mine]
    return paired(mine, theirs, loss, by) - loss.nll_weight * total(answers) / sum(one.weight for one in answers)


def _nothing(rows: Rows) -> list[Weighed]:
    return [NOTHING for _ in rows]


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


def _ratios(mine: Sequence[Weighed], theirs: Sequence[Weighed]) -> list[Tensor]:
    return [own.log_prob - other.log_prob for own, other in zip(mine, theirs, strict=True)]
