"""What the sequences of a flat forward pass begin with alike is computed once: a system prompt, tools, an instruction.

Equal tokens at equal places after equal ones have equal hidden states, and the gradients that they are given add up.
So the loss and its gradient are those of the sequences one by one, but for dropout, whose mask is then one for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from swift.core.errors import SwiftError
from swift.core.log import log
from swift.data.collator import flatten, rows
from swift.data.packing import unpacked
from swift.data.stream import StreamDataset
from swift.params.flag import chosen
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
BY_PLACE = ("longlora", "reft")
"""Tuners that treat a token by its place in its sequence."""


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


def shares_beginnings(setting: Setting) -> bool:
    """Whether beginnings in common are computed once, as the plan says or by what it saves. Says what it found."""
    wanted = chosen(setting.plan.train.group.share_prompts)
    if wanted is False:
        return False
    measured = _obstacle(setting) is None and not isinstance(setting.rows, StreamDataset)
    ratio = token_ratio(setting) if measured else None
    if (not wanted and (ratio is None or ratio <= WORTH_IT)) or not can_share(setting):
        return False
    saved = "" if ratio is None else f": that makes {ratio:.3f} x fewer tokens"
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
        "--share_prompts true does not work with this model",
        where="--share_prompts",
        why=why,
        next="leave the flag out",
    )


def _obstacle(setting: Setting) -> str | None:
    plan = setting.plan
    if not setting.flat:
        return "its rows are padded, and each of them is computed for itself"
    if setting.images is not None:
        return "rows with media are not compared"
    if plan.train.sequence_parallel > 1:
        return "--sequence_parallel_size spreads a pass over processes as it comes"
    if plan.train.group.neftune_noise_alpha:
        return "--neftune_noise_alpha gives each row a noise of its own"
    if plan.tuner.sft_type in BY_PLACE:
        return f"--sft_type {plan.tuner.sft_type} treats tokens by their place"
    return None


def token_ratio(setting: Setting) -> float:
    """Tokens of the first rows, divided by those that are computed when passes share their beginnings."""
    apart = together = 0
    for items in _first_passes(setting):
        sequences = sorted((piece for item in items for piece in unpacked(item)), key=lambda piece: piece["input_ids"])
        tokens = sum(map(tokens_of, sequences))
        apart, together = apart + tokens, together + tokens - sum(beginnings(sequences))
    return apart / together if together else 1.0


def _first_passes(setting: Setting) -> Iterator[list[dict[str, Any]]]:
    plan, dataset = setting.plan.train, setting.rows
    order = row_order(len(dataset), plan.data_seed % 2**32)
    step = plan.batch_size * plan.accumulation
    for first in range(0, min(len(order), SAMPLED), step):
        items = [dataset[number] for number in order[first : first + step]]
        if plan.pass_tokens is None:
            yield from (items[at : at + plan.batch_size] for at in range(0, len(items), plan.batch_size))
            continue
        sizes = [tokens_of(item) for item in items]
        for numbers in lay(sizes, passes_needed(sizes, plan, plan.accumulation), plan):
            yield [items[number] for number in numbers]
