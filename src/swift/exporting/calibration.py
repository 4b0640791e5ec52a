"""The rows of a quantization as the model will see them: token ids to calibrate on, and others to be judged by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from swift import data
from swift.core.errors import SwiftError
from swift.core.log import log
from swift.data.dataset import MapDataset
from swift.data.stream import StreamDataset
from swift.plan.quantize import QuantizePlan
from swift.prompts.encode import Encoder

HELD_TOKENS = 2048
"""Tokens that are compared at most: all logits of two models are kept for them."""
HELD_LENGTH = 512
"""Tokens of one held row at most."""
ENOUGH_HELD = 64
"""Held tokens below which a perplexity says nothing."""


@dataclass(frozen=True)
class HeldRow:
    """A row that calibration does not see."""

    ids: tuple[int, ...]
    prompt: int
    """Number of tokens before the first answer."""


@dataclass(frozen=True)
class Rows:
    """Both sides."""

    calibration: tuple[tuple[int, ...], ...]
    held: tuple[HeldRow, ...]

    @property
    def tokens(self) -> int:
        """Tokens to calibrate on."""
        return sum(map(len, self.calibration))


def read_rows(plan: QuantizePlan, encoder: Encoder) -> Rows:
    """Encode the plan's rows and draw, by its seed, those that calibrate. Raises SwiftError for too few of them."""
    built = data.build(plan.data, encoder, data.Ledger())
    assert not isinstance(built.train, StreamDataset)  # the plan says eager
    held = _held(built.val) if built.val is not None else ()
    if sum(len(row.ids) for row in held) < ENOUGH_HELD:
        raise SwiftError(
            "there are too few rows to compare the quantized model on",
            where="--dataset",
            why=f"{sum(len(row.ids) for row in held)} tokens are held back, at least {ENOUGH_HELD} are needed",
            next="give more rows, or others with --val_dataset",
        )
    if plan.method == "bnb":
        return Rows((), held)
    if plan.samples > len(built.train) and plan.samples_given:
        raise SwiftError(
            f"there are {len(built.train)} rows to calibrate on, not {plan.samples}",
            where="--quant_n_samples",
            next="give more rows with --dataset, or ask for fewer",
        )
    order = np.random.RandomState(plan.data.seed).permutation(len(built.train))[: plan.samples]
    if len(order) < plan.samples:
        log.info("calibrating on all %d rows", len(order))
    ids = (tuple(built.train[int(index)]["input_ids"][: plan.seqlen]) for index in order)
    return Rows(tuple(row for row in ids if row), held)


def require_enough(rows: Rows, width: int) -> None:
    """Raise SwiftError for fewer tokens than a layer has inputs, which leave its weights undetermined."""
    if rows.tokens < width:
        raise SwiftError(
            f"{rows.tokens} tokens are too few to calibrate on",
            where="--dataset, --quant_n_samples, --quant_seqlen",
            why=f"a layer of this model has {width} inputs, and each needs a token at least",
            next="give more or longer rows",
        )


def _held(examples: MapDataset) -> tuple[HeldRow, ...]:
    rows, tokens = [], 0
    for number in range(len(examples)):
        ids, labels = examples[number]["input_ids"][:HELD_LENGTH], examples[number]["labels"]
        if tokens + len(ids) > HELD_TOKENS or len(ids) < 2:
            continue
        prompt = next((at for at, label in enumerate(labels) if label >= 0), len(ids))
        rows.append(HeldRow(tuple(ids), min(prompt, len(ids))))
        tokens += len(ids)
    return tuple(rows)
