"""Which row of a step, or which weight, is to blame for a loss that is no number: looked for once, when a run ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from accelerate.utils.operations import send_to_device
from torch import nn

from swift.core.log import log
from swift.data.packing import PackedDataset
from swift.data.stream import StreamDataset
from swift.training.callbacks.loss_watch import NotANumber
from swift.training.finite_weights import ANOTHER_COPY, broken_weight
from swift.training.objectives import Batch, Objective
from swift.training.objectives.preference import PairObjective
from swift.training.objectives.reference import evaluating
from swift.training.objectives.sft import SftObjective

BY_ROW = (SftObjective, PairObjective)
"""What a row adds to these does not depend on the others."""


def blame(
    error: NotANumber,
    model: nn.Module,
    objective: Objective,
    collate: Callable[[list[dict[str, Any]]], Batch],
    train: Any,
    where: Callable[[int], str],
) -> None:
    """Name a weight that is no number, and narrow `error.where` down to the rows that have such a loss alone.

    The weights are still those of before the step on a CPU, where a loss is looked at as it comes. On a GPU they may be
    no numbers any more; then all rows stay named.
    """
    broken = broken_weight(_as_loaded(model, trained=error.step <= 1))
    if broken is not None:
        error.why, error.next = f"the model was loaded with a weight that is not a number: {broken}", ANOTHER_COPY
    rows = train.examples if isinstance(train, PackedDataset) else train
    if len(error.rows) < 2 or isinstance(rows, StreamDataset) or not isinstance(objective, BY_ROW):
        return
    log.info("looking for the row to blame among %d", len(error.rows))
    alone = list(_without_loss(error.rows, rows, model, objective, collate))
    if 0 < len(alone) < len(error.rows):
        error.where = ", ".join(map(where, alone[:8]))
        rows_alone = f"computed alone, {len(alone)} of the {len(error.rows)} rows of the batch have such a loss"
        error.why = rows_alone if broken is None else f"{rows_alone}; {error.why}"
        error.next = "look at what is special there (a token, a number); the last checkpoint is good"


def _as_loaded(model: nn.Module, *, trained: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """Frozen weights, and before the first step the `trained` ones: on a GPU it has been made when the loss is seen."""
    for name, weight in model.named_parameters():
        if not weight.requires_grad or (trained and weight.device.type == "cpu"):
            yield name, weight


def _without_loss(
    numbers: Sequence[int],
    rows: Any,
    model: nn.Module,
    objective: Objective,
    collate: Callable[[list[dict[str, Any]]], Batch],
) -> Iterator[int]:
    device = next(model.parameters()).device
    with torch.no_grad(), evaluating(model):
        for number in numbers:
            batch: Any = send_to_device(collate([rows[number]]), device)
            if not torch.isfinite(objective.sums(model, batch).loss).all():
                yield number
