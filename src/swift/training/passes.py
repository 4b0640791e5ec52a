"""How the rows of an optimizer step are laid into forward passes of a flat model: few, whole rows, in order.

The loss is a mean over the tokens of the whole step, so it does not depend on where a step is cut. A pass costs the
memory of its tokens and the time of its start, hence as few as fit, and as even as they come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
    """The plan with the most tokens of a forward pass, which is said; without where the micro-batches are as given."""
    tokens = _pass_tokens(plan, built)
    plan = replace(plan, train=replace(plan.train, pass_tokens=tokens))
    if tokens is not None:
        log.info("%s", describe(plan.train, built))
    return plan


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


def fewest(sizes: Sequence[int], limit: int) -> int:
    """The fewest runs of neighbours that add up to at most `limit` each; what is larger by itself is one of its own."""
    count, room = 0, 0
    for size in sizes:
        if size > room or not count:
            count, room = count + 1, limit
        room -= size
    return count


def split(sizes: Sequence[int], count: int) -> list[slice]:
    """`sizes` in `count` runs of neighbours (at most one each), the largest sum of which is as small as it can be."""
    low, high = max(sizes), sum(sizes)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fewest(sizes, middle) <= count else (middle + 1, high)
    cuts, filled = [0], 0
    for number, size in enumerate(sizes):
        needed = count - len(cuts)  # runs that are still to begin
        if number > cuts[-1] and (filled + size > low or len(sizes) - number == needed):
            cuts.append(number)
            filled = 0
        filled += size
    return [slice(start, end) for start, end in zip(cuts, [*cuts[1:], len(sizes)], strict=True)]


def passes_needed(sizes: Sequence[int], plan: TrainPlan, micro_batches: int) -> int:
    """Forward passes for rows of these sizes: never more than the micro-batches they came in."""
    assert plan.pass_tokens is not None
    return min(micro_batches, fewest(sizes, plan.pass_tokens))


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
            yield [sum(rows[run]) for run in split(rows, passes_needed(rows, plan, len(mine)))]
