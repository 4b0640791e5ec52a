"""`--dry_run`: what a run would do, up to the weights: rows token by token, ledger, steps, memory, disk."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swift.catalog import Catalog
from swift.models.free_memory import free_memory
from swift.plan.sft import SftPlan
from swift.plan.train import TrainPlan
from swift.prompts.types import IGNORED
from swift.training.artifacts import ends_of, labels_of, stretches
from swift.training.memory_estimate import DiskEstimate, Estimate, disk_estimate, estimate, gib, largest_batch
from swift.training.memory_shares import Whole, chosen_and_next, engine_of, shares
from swift.training.prepare import prepare

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from swift.models.families import MediaProcessor

ROWS = 2
"""Rows that are shown token by token."""
SAMPLED = 256
"""Rows of a stream that are read to know lengths."""
TOKENS = 60
"""Tokens of a row that are shown; of a longer one, as many of its start and its end."""


def preview(plan: SftPlan, catalog: Catalog, folder: Path, resume: Path | None = None) -> str:
    """The text that a dry run prints. `folder` is where the run would write; nothing is written."""
    prepared = prepare(plan, catalog, None, resume)
    plan = prepared.plan
    train: Any = prepared.built.train
    val, tokenizer, steps = prepared.built.val, prepared.tokenizer, prepared.steps
    first = list(islice(train, SAMPLED)) if train.lengths is None else [train[i] for i in range(min(ROWS, len(train)))]
    lengths = [longest(item) for item in first] if train.lengths is None else train.lengths.tolist()
    counts = {"steps": steps, "per_epoch": prepared.per_epoch}
    sizes = estimate(plan, prepared.source, largest_batch(plan.train, lengths, steps), **counts)
    count = "a stream of" if train.lengths is None else len(train)
    rows = first[:ROWS]
    return "\n".join(
        [
            *(
                f"{end} {i + 1} ({train.origin(i)})\n{table(answer, tokenizer, prepared.images)}\n"
                for i, row in enumerate(rows)
                for end, answer in ends_of(row).items()
            ),
            f"rows       {prepared.ledger.summary()}",
            f"template   {prepared.encoder.template_type}",
            f"train      {count} rows, validation {len(val) if val else 0} rows",
            f"steps      {steps} ({prepared.per_epoch} an epoch, {plan.train.effective_batch} rows each, "
            f"{plan.train.warmup(steps)} warm-up)",
            *(
                _sizes(sizes, disk_estimate(plan, sizes, tokenizer, **counts), plan.train)
                if sizes
                else ["memory     not known: this model does not compute without its weights"]
            ),
            f"output     {folder}",
            "dry run: no weights were loaded and no run folder was made",
        ]
    )


def longest(row: Mapping[str, Any]) -> int:
    """Tokens of a row, or of the longer answer of a pair."""
    return max(len(end["input_ids"]) for end in ends_of(row).values())


def table(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, images: MediaProcessor | None = None) -> str:
    """A row as lines `token · id · trained`, or with the weight where it is not 1; long rows without their middle.

    An image is one line.
    """
    ids, labels = row["input_ids"], labels_of(row)
    weights = row.get("loss_scale") or [1] * len(ids)
    shown: list[tuple[str, int | str, str]] = []
    place = 0
    for words, stretch in stretches(row, images):
        if words:
            shown.append((words, stretch[0], "-"))
        for at, token in enumerate([] if words else stretch, place):
            text = repr(tokenizer.decode([token]))[1:-1]
            shown.append((text, token, _trained(labels[at], weights[at])))
        place += len(stretch)
    hidden = len(shown) - TOKENS
    if hidden > 0:
        gap = (f"… {hidden} tokens …", "", "")
        shown = [*shown[: TOKENS // 2], gap, *shown[-TOKENS // 2 :]]
    width = max(len(text) for text, _, _ in shown)
    return "\n".join(f"  {text:<{width}} · {token:>7} · {trained}" for text, token, trained in shown)


def _trained(label: int, weight: float) -> str:
    if label == IGNORED:
        return "-"
    return "trained" if weight == 1 else f"{weight:g}"


def _sizes(sizes: Estimate, disk: DiskEstimate, plan: TrainPlan) -> list[str]:
    return [
        f"parameters {sizes.parameters:,}, {sizes.trainable:,} trained ({sizes.trainable / sizes.parameters:.2%})",
        f"memory     about {gib(sizes.peak)} at the peak: weights {gib(sizes.weights)}, gradients and optimizer "
        f"{gib(sizes.gradients + sizes.optimizer)}, activations {gib(sizes.activations)} for a batch of "
        f"{sizes.tokens} tokens" + _reference(sizes),
        *_of_each_process(sizes, plan),
        f"disk       about {_mib(disk.total)}: {disk.checkpoints} checkpoints of {_mib(disk.checkpoint)}",
    ]


def _of_each_process(sizes: Estimate, plan: TrainPlan) -> list[str]:
    """What each of several processes holds, the way it was chosen and the next two that hold less and fit."""
    if plan.world_size == 1:
        return []
    free = free_memory(plan.device)
    if free is not None and plan.device == "cpu":
        free //= plan.world_size
    whole = Whole(
        parameters=sizes.parameters,
        trainable=sizes.trainable,
        weights=sizes.weights,
        gradients=sizes.gradients,
        states=sizes.states,
        layer=sizes.layer,
        outside=sizes.outside,
    )
    activations = sizes.activations // plan.sequence_parallel
    room = None if free is None else free - activations
    table = chosen_and_next(shares(whole, plan.world_size), engine_of(plan), room)
    lines = [
        f"{share.engine}: {gib(share.total + activations)} (weights {gib(share.weights)}, gradients "
        f"{gib(share.gradients)}, optimizer {gib(share.optimizer)}, gathered layers {gib(share.gathered)}, "
        f"activations {gib(activations)})"
        for share in table
    ]
    if len(table) < 3 and free is not None:
        lines.append(f"nothing else holds less and fits into the {gib(free)} that are free")
    return [f"{'a process' if not number else '':<10} {line}" for number, line in enumerate(lines)]


def _reference(sizes: Estimate) -> str:
    if not sizes.reference:
        return ""
    when = "asked before training and then out of memory" if sizes.reference_first else "in memory while training"
    return f", reference {gib(sizes.reference)} ({when})"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
