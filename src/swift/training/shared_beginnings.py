"""What the sequences of a flat forward pass begin with alike is computed once: a system prompt, tools, an instruction.

Equal tokens at equal places after equal ones have equal hidden states, and the gradients that they are given add up.
So the loss and its gradient are those of the sequences one by one, but for dropout, whose mask is then one for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.data.collator import flatten, rows
from swift.data.packing import segments, unpacked
from swift.data.stream import StreamDataset
from swift.params.flag import chosen
from swift.plan.train import TrainPlan
from swift.prompts.types import IGNORED
from swift.training.objectives import Batch, Setting
from swift.training.passes import lay, passes_needed, tokens_of
from swift.training.row_order import row_order
from swift.training.varlen_attention import shares_prefixes

SAMPLED = 200
"""Rows, the first in order, from which the gain of sharing beginnings is estimated."""
WORTH_IT = 1.04
"""Token ratio from which beginnings are shared unasked."""
SHORTEST_PREFIX = 16
"""Tokens that two sequences must have in common before it pays to compute them once."""
KEYS = 8
"""A sequence keeps the keys and values of the beginning that it goes on after until the backward pass: for each so many
tokens of it, less than all that is kept of one token (2 of some 20 widths, where heads are not grouped)."""


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """First tokens that two sequences have in common."""
    most = min(len(one), len(other))
    return next((place for place in range(most) if one[place] != other[place]), most)


def flatten_shared(items: Sequence[dict[str, Any]]) -> Batch:
    """`flatten`, with the sequences in the order of their tokens and beginnings in common in the first of those only.

    `prefix_lengths` says how many first tokens of a sequence are those of the last one before it that has all its own.
    """
    sequences = sorted((piece for item in items for piece in unpacked(item)), key=lambda piece: piece["input_ids"])
    left_out = beginnings(sequences)
    own = [
        {name: value[length:] if isinstance(value, list) else value for name, value in sequence.items()}
        for sequence, length in zip(sequences, left_out, strict=True)
    ]
    return {**flatten(own, left_out), "rows": rows(items)}


def beginnings(sequences: Sequence[dict[str, Any]]) -> list[int]:
    """How many first tokens each of the sequences leaves to the last one before it that leaves none.

    Sorted ones have most in common with their neighbours. No trained token is left out, nor the one that it is
    predicted from. A sequence has all its own where the next one has more than twice as much in common with it as it
    has with those before.
    """
    ids = [sequence["input_ids"] for sequence in sequences]
    common = [0, *(common_length(*two) for two in pairwise(ids))]
    untrained = [_first_label(sequence["labels"]) - 1 for sequence in sequences]
    follows = [*(min(two) for two in zip(common, untrained, strict=True)), 0]
    left_out, seen = [], 0
    for number, tokens in enumerate(ids):
        seen = min(seen, common[number])
        length = min(seen, follows[number])
        if length < SHORTEST_PREFIX or follows[number + 1] > 2 * length:
            length, seen = 0, len(tokens)
        left_out.append(length)
    return left_out


def _first_label(labels: Sequence[int]) -> int:
    return next((place for place, label in enumerate(labels) if label != IGNORED), len(labels))


def sized(items: Sequence[dict[str, Any]], plan: TrainPlan) -> tuple[list[int], TrainPlan]:
    """Tokens of the rows of a step, and the plan that they are laid into passes by: with the room of its passes.

    What all of them begin with counts once in a pass, and its keys for each row. What only some have in common then
    takes less than its room.
    """
    sizes = [tokens_of(item) for item in items]
    if not plan.shares_beginnings or plan.pass_tokens is None or not items:
        return sizes, plan
    counts, common = [len(segments(item)) for item in items], _common_to_all(items)
    left = common - -(-common // KEYS)
    own = [size - left * count for size, count in zip(sizes, counts, strict=True)]
    return own, replace(plan, pass_tokens=plan.pass_tokens - common)


def _common_to_all(items: Sequence[dict[str, Any]]) -> int:
    sequences = [piece for item in items for piece in unpacked(item)]
    first = sequences[0]["input_ids"]
    length = min(
        min(common_length(first, sequence["input_ids"]), _first_label(sequence["labels"]) - 1) for sequence in sequences
    )
    return length if length >= SHORTEST_PREFIX else 0


def shares_beginnings(setting: Setting) -> bool:
    """Whether beginnings in common are computed once, as the plan says or by what it saves. Says what it found."""
    wanted = chosen(setting.plan.train.group.share_prompts)
    if wanted is False:
        return False
    measured = _obstacle(setting) is None and not isinstance(setting.rows, StreamDataset)
    steps = list(_first_steps(setting)) if measured else []
    ratio = token_ratio(chain.from_iterable(steps))
    if (not wanted and ratio <= WORTH_IT) or not can_share(setting):
        return False
    counts = sorted(len(passes) for passes in steps)
    number = "-".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else ""
    saved = f": {ratio:.3f} x fewer tokens, passes a step: {number}" if counts else ""
    log.info("what rows of a pass begin with alike is computed once%s", saved)
    return True


def can_share(setting: Setting) -> bool:
    """Whether beginnings may be computed once. Raises SwiftError where they must, and cannot."""
    wanted, obstacle = chosen(setting.plan.train.group.share_prompts), _obstacle(setting)
    if wanted is False:
        return False
    if obstacle is None and not shares_prefixes(setting.base):
        obstacle = "its attention cannot see two sequences after one beginning"
    if obstacle is not None and wanted:
        raise cannot_share(obstacle)
    return obstacle is None


def cannot_share(why: str) -> SwiftError:
    """What `--share_prompts true` ends in where it cannot be done."""
    return SwiftError(
        "--share_prompts true does not work in this run",
        where="--share_prompts",
        why=why,
        next="leave the flag out",
    )


def _obstacle(setting: Setting) -> str | None:
    if not setting.flat:
        return "its rows are padded, and each of them is computed for itself"
    if setting.images is not None:
        return "rows with media are not compared"
    return setting.plan.train.apart


def token_ratio(passes: Iterable[Sequence[dict[str, Any]]]) -> float:
    """Tokens of the rows of some passes, divided by those that are computed when they share their beginnings."""
    apart = together = 0
    for items in passes:
        sequences = sorted((piece for item in items for piece in unpacked(item)), key=lambda piece: piece["input_ids"])
        tokens = sum(map(tokens_of, sequences))
        apart, together = apart + tokens, together + tokens - sum(beginnings(sequences))
    return apart / together if together else 1.0


def _first_steps(setting: Setting) -> Iterator[list[list[dict[str, Any]]]]:
    """The passes of the first steps, as they are when beginnings are shared."""
    plan, dataset = replace(setting.plan.train, shares_beginnings=True), setting.rows
    order = row_order(len(dataset), plan.data_seed % 2**32)
    rows = plan.batch_size * plan.accumulation
    for first in range(0, min(len(order), SAMPLED), rows):
        items = [dataset[number] for number in order[first : first + rows]]
        if plan.pass_tokens is None:
            yield [items[at : at + plan.batch_size] for at in range(0, len(items), plan.batch_size)]
            continue
        sizes, room = sized(items, plan)
        laid = lay(sizes, passes_needed(sizes, room, plan.accumulation), room)
        yield [[items[number] for number in numbers] for numbers in laid]
