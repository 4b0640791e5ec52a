"""Who runs and what a step computes, with a runner that only counts."""

from __future__ import annotations

from itertools import count
from typing import Any

from swift.engines.base import Request, SamplingParams
from swift.engines.scheduler import Scheduler
from swift.engines.sequence import Sequence

_ids = count()


class CountingRunner:
    """Keeps how far each sequence is, in `room` tokens of memory."""

    splits_prompts = True

    def __init__(self, room: int = 10**9):
        self.room = room
        self.places: dict[Sequence, int] = {}

    def admit(self, sequence: Sequence) -> int | None:
        if self._full(len(sequence.tokens)):
            return None
        self.places[sequence] = 0
        return 0

    def reserve(self, sequence: Sequence) -> bool:
        return sum(len(s.tokens) for s in self.places) <= self.room

    def computed(self, sequence: Sequence) -> int:
        return self.places[sequence]

    def release(self, sequence: Sequence) -> None:
        del self.places[sequence]

    def compute(self, scheduler: Scheduler) -> dict[Sequence, int]:
        """One step: counts by sequence; whoever is done gets a token."""
        work = scheduler.next()
        for sequence, number in zip(work.sequences, work.counts, strict=True):
            self.places[sequence] += number
            if scheduler.done(sequence):
                sequence.tokens.append(1)
        return dict(zip(work.sequences, work.counts, strict=True))

    def _full(self, more: int) -> bool:
        return sum(len(s.tokens) for s in self.places) + more > self.room


def sequence(prompt: int, request: Request | None = None, index: int = 0) -> Sequence:
    request = request or Request(
        id=str(next(_ids)), prompt_ids=tuple(range(prompt)), sampling=SamplingParams(max_tokens=100, n=2)
    )
    return Sequence(request, index, None, frozenset(), prompt + 100, None)


def scheduler_of(runner: Any, chunk: int = 100, places: int = 8) -> Scheduler:
    return Scheduler(runner, chunk=chunk, places=places)


def test_a_step_has_a_token_of_every_answer_and_a_chunk_of_prompts() -> None:
    runner = CountingRunner()
    scheduler = scheduler_of(runner)
    first, second = sequence(60), sequence(70)
    scheduler.add(first)
    assert runner.compute(scheduler) == {first: 60}
    scheduler.add(second)
    third = sequence(50)
    scheduler.add(third)
    assert runner.compute(scheduler) == {first: 1, second: 70, third: 30}
    assert runner.compute(scheduler) == {first: 1, second: 1, third: 20}


def test_short_prompts_pass_a_long_one_which_still_goes_on() -> None:
    runner = CountingRunner()
    scheduler = scheduler_of(runner)
    long, short = sequence(1000), sequence(90)
    scheduler.add(long)
    scheduler.add(short)
    assert runner.compute(scheduler) == {short: 90, long: 25}
    assert runner.compute(scheduler) == {short: 1, long: 100}


def test_more_than_there_are_places_wait_in_order() -> None:
    runner = CountingRunner()
    scheduler = scheduler_of(runner, places=2)
    some = [sequence(5) for _ in range(4)]
    for each in some:
        scheduler.add(each)
    assert list(runner.compute(scheduler)) == some[:2]
    scheduler.drop(some[0])
    assert list(runner.compute(scheduler)) == [some[1], some[2]]
    scheduler.drop(some[3])
    assert not scheduler.waiting


def test_the_second_answer_waits_for_the_prompt_of_the_first() -> None:
    runner = CountingRunner()
    scheduler = scheduler_of(runner, chunk=10)
    first = sequence(15)
    second = sequence(15, first.request, 1)
    scheduler.add(first)
    scheduler.add(second)
    assert runner.compute(scheduler) == {first: 10}
    assert runner.compute(scheduler) == {first: 5}
    assert second in runner.compute(scheduler)


def test_without_memory_the_last_goes_back_to_the_front_of_the_queue() -> None:
    runner = CountingRunner(room=24)
    scheduler = scheduler_of(runner)
    first, second, third = sequence(10), sequence(10), sequence(10)
    for each in (first, second, third):
        scheduler.add(each)
    steps = [runner.compute(scheduler) for _ in range(6)]
    assert set(steps[0]) == {first, second}
    assert set(steps[-1]) == {first}
    assert list(scheduler.waiting) == [second, third]
    scheduler.drop(first)
    # What it had said is kept: prompt and answer are computed again.
    assert runner.compute(scheduler)[second] == len(second.tokens) - 1
