"""How the rows of an optimizer step are laid into forward passes of a flat model: few, even, of whole rows.

The loss is a mean over the tokens of the whole step, so it depends neither on where a step is cut nor on which of its
rows share a pass. A pass costs the memory of its tokens and the time of its start, hence as few as fit, and as even as
they come. Rows keep their order inside a pass, and passes come in the order of their first rows.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import heapreplace
from itertools import islice
from typing import Any

from numpy import argsort

from swift.core.log import log
from swift.data import Built
from swift.params.alignment import DEPENDS_ON_MICRO_BATCH
from swift.plan.sft import SftPlan
from swift.plan.train import TrainPlan
from swift.training.row_order import row_order

CPU_TOKENS = 1024
"""Tokens of a pass beyond which a CPU is no faster: SmolLM2 on two cores did 0.055 steps a second by single rows, 0.067
at 512 tokens, 0.078 at 1,024 and 0.079 at 2,048, which took 1.6 GiB more."""
LOOKED_AT = 1000
"""The most rows that are read to find the longest."""
SHOWN_STEPS = 200
"""Optimizer steps of the first epoch that are laid out to say how many passes there will be."""


def tokens_of(row: Mapping[str, Any]) -> int:
    """Tokens of a row, over both answers of a pair."""
    return sum(len(value) for name, value in row.items() if name.endswith("input_ids"))


def with_pass_tokens(plan: SftPlan, built: Built) -> SftPlan:
    """The plan with the most tokens of a forward pass; without where the micro-batches are as given."""
    return replace(plan, train=replace(plan.train, pass_tokens=_pass_tokens(plan, built)))


def widened(plan: SftPlan) -> SftPlan | None:
    """The plan with forward passes as large as a CPU is fastest with; None where they are, or are not to be.

    A size of batches that somebody said bounds the memory; what pixels take is not estimated.
    """
    train = plan.train
    bounded = train.batch_size_said or train.group.micro_batching != "auto" or plan.data.media
    if train.pass_tokens is None or bounded or train.device != "cpu":
        return None
    tokens = min(CPU_TOKENS, train.pass_tokens * train.accumulation)
    return replace(plan, train=replace(train, pass_tokens=tokens)) if tokens > train.pass_tokens else None


def _pass_tokens(plan: SftPlan, built: Built) -> int | None:
    how = plan.train.group.micro_batching
    if how == "said":
        return None
    if plan.alignment is not None and plan.alignment.loss.loss_type in DEPENDS_ON_MICRO_BATCH:
        log.info("micro-batches are as given: the loss %s depends on them", plan.alignment.loss.loss_type)
        return None
    if plan.alignment is not None and plan.alignment.answers is not None:
        log.info("micro-batches are as given: how long the answers will be is not known")
        return None
    if how != "auto":
        return int(how)
    longest = longest_row(built, plan.data.max_length)
    if longest is None:
        return None
    tokens = longest * plan.train.batch_size
    return min(tokens, max(longest, CPU_TOKENS)) if plan.train.device == "cpu" else tokens


def most_tokens(plan: SftPlan, built: Built) -> int | None:
    """Tokens that the largest forward pass may have, in whatever order rows come, padded or not; None: any number."""
    longest = longest_row(built, plan.data.max_length)
    if longest is None:
        return None
    if plan.alignment is not None and plan.alignment.answers is not None:
        longest += plan.alignment.answers.max_new_tokens
    return max(longest * plan.train.batch_size, plan.train.pass_tokens or 0)


def describe(plan: TrainPlan, built: Built) -> str:
    """`16 rows a step, 2-3 passes of up to 1,912 tokens`, for one process."""
    rows, number = plan.batch_size * plan.accumulation, ""
    if built.train.lengths is not None and _answers(built) == 1:
        counts = [len(sizes) for sizes in islice(step_sizes(plan, built.train.lengths.tolist(), 0), SHOWN_STEPS)]
        fewest_, most = min(counts), max(counts)
        number = f"{most} " if fewest_ == most else f"{fewest_}-{most} "
    return f"{rows} rows a step, {number}{'pass' if number == '1 ' else 'passes'} of up to {plan.pass_tokens:,} tokens"


def longest_row(built: Built, max_length: int | None) -> int | None:
    """Tokens of the longest row; of a stream what `max_length` allows, None where it allows any length."""
    rows, answers = built.train, _answers(built)
    if rows.lengths is None:
        return None if max_length is None else max_length * answers
    if answers == 1:
        return int(rows.lengths.max())
    longest = 0
    for number in argsort(-rows.lengths, kind="stable")[:LOOKED_AT].tolist():
        if answers * rows.lengths[number] <= longest:  # `lengths` are those of the longer answers
            break
        longest = max(longest, tokens_of(rows[number]))
    return longest


def _answers(built: Built) -> int:
    return sum(name.endswith("input_ids") for name in built.first)


def passes_needed(sizes: Sequence[int], plan: TrainPlan, micro_batches: int) -> int:
    """Forward passes for rows of these sizes: never more than the micro-batches they came in."""
    assert plan.pass_tokens is not None
    return min(micro_batches, len(_best_fit(sizes, plan.pass_tokens)))


def lay(sizes: Sequence[int], count: int, plan: TrainPlan) -> list[list[int]]:
    """Rows of these sizes, by their numbers, in `count` passes: even ones where those fit, else the fewest that do.

    Even passes of `count` micro-batches have no more tokens than `batch_size` times the longest row, fit or not.
    """
    assert plan.pass_tokens is not None
    passes = _even(sizes, count)
    if max(sum(sizes[row] for row in rows) for rows in passes) > plan.pass_tokens:
        tight = _best_fit(sizes, plan.pass_tokens)
        passes = tight if len(tight) <= count else passes
    return sorted(map(sorted, passes))


def _best_fit(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """The longest rows first, each into the fullest pass that has room; what is larger by itself is one of its own.

    At most 11/9 of the fewest and one more: D. S. Johnson et al., Worst-Case Performance Bounds for Simple
    One-Dimensional Packing Algorithms, 1974.
    """
    passes: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # room of a pass and its number, ascending
    for row in _longest_first(sizes):
        place = bisect_left(rooms, (sizes[row], -1))
        if place == len(rooms):
            passes.append([])
            room, number = limit, len(passes) - 1
        else:
            room, number = rooms.pop(place)
        passes[number].append(row)
        insort(rooms, (room - sizes[row], number))
    return passes


def _even(sizes: Sequence[int], count: int) -> list[list[int]]:
    """The longest rows first, each into the emptiest of `count` passes (fewer where there are fewer rows).

    The largest has at most 4/3 of what it must have: R. L. Graham, Bounds on Multiprocessing Timing Anomalies, 1969.
    """
    filled = [(0, number) for number in range(min(count, len(sizes)))]
    passes: list[list[int]] = [[] for _ in filled]
    for row in _longest_first(sizes):
        size, number = filled[0]
        passes[number].append(row)
        heapreplace(filled, (size + sizes[row], number))
    return passes


def _longest_first(sizes: Sequence[int]) -> list[int]:
    return sorted(range(len(sizes)), key=lambda row: -sizes[row])


def step_sizes(plan: TrainPlan, lengths: Sequence[int], epoch: int) -> Iterator[list[int]]:
    """Tokens of the passes of each optimizer step, process after process, in the order that the seed gives."""
    order = row_order(len(lengths), (plan.data_seed + epoch) % 2**32)
    if plan.group.test_oom_error:
        order = sorted(order, key=lambda row: -lengths[row])
    sizes = [lengths[row] for row in order]
    batches = [sizes[start : start + plan.batch_size] for start in range(0, len(sizes), plan.batch_size)]
    step = plan.accumulation * plan.data_parallel
    for first in range(0, len(batches), step):
        for rank in range(min(plan.data_parallel, len(batches) - first)):
            mine = batches[first + rank : first + step : plan.data_parallel]
            if plan.pass_tokens is None:
                yield [sum(batch) for batch in mine]
                continue
            rows = [size for batch in mine for size in batch]
            passes = lay(rows, passes_needed(rows, plan, len(mine)), plan)
            yield [sum(rows[number] for number in numbers) for numbers in passes]
