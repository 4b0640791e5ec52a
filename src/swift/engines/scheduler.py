"""Which sequences run and what the next step computes: first come, first served, in bounded steps."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass

from swift.engines.runner import Runner
from swift.engines.sequence import Sequence


@dataclass(frozen=True)
class Work:
    """One step: the next `counts[i]` tokens of `sequences[i]`."""

    sequences: list[Sequence]
    counts: list[int]


class Scheduler:
    """Waiting and running sequences. A step computes one token of each answer and at most `chunk` prompt tokens, so
    that a long prompt holds up neither the answers under way nor the newcomers behind it for long."""

    def __init__(self, runner: Runner, *, chunk: int, places: int):
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._runner = runner
        self._chunk = chunk if runner.splits_prompts else sys.maxsize
        self._places = places
        self._suspects: set[Sequence] = set()

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        self.waiting.append(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Forget a sequence, finished or not, and free its place."""
        self._suspects.discard(sequence)
        if sequence in self.running:
            self.running.remove(sequence)
            self._runner.release(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def isolate(self, sequences: list[Sequence]) -> None:
        """A step over these failed: each starts again and runs by itself, until it has a token or failed alone."""
        self._suspects.update(sequences)
        for each in reversed(sequences):
            self._back_to_queue(each)

    def next(self) -> Work:
        """Admit what there is room for and say what to compute."""
        self._admit()
        self._reserve()
        pending = {each: len(each.tokens) - self._runner.computed(each) for each in self.running}
        suspect = next((each for each in self.running if each in self._suspects), None)
        if suspect is not None:
            return Work([suspect], [min(pending[suspect], self._chunk)])
        answers = [each for each, count in pending.items() if count == 1]
        # Prompts that fit into one step go before those that take several, which get a share of every step.
        prompts = sorted((s for s, n in pending.items() if n > 1), key=lambda each: pending[each] > self._chunk)
        work = Work(answers, [1] * len(answers))
        left = self._chunk
        for each in prompts:
            if pending[each] > self._chunk and not any(pending[other] > self._chunk for other in work.sequences):
                left = max(left, self._chunk // 4)
            count = min(pending[each], left)
            if count:
                work.sequences.append(each)
                work.counts.append(count)
                left -= count
        return work

    def done(self, sequence: Sequence) -> bool:
        """Whether every token it has is computed, so that its logits give the next one."""
        return self._runner.computed(sequence) >= len(sequence.tokens)

    def came_through(self, work: Work) -> None:
        """The step was computed: what has a next token now is not to blame for an earlier failure."""
        self._suspects.difference_update(each for each in work.sequences if self.done(each))

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self._places:
            sequence = self.waiting[0]
            if self._waits_for_sibling(sequence):
                return
            computed = self._runner.admit(sequence)
            if computed is None:
                return
            if sequence.cached_tokens is None:
                sequence.cached_tokens = computed
            self.running.append(self.waiting.popleft())

    def _waits_for_sibling(self, sequence: Sequence) -> bool:
        """The second answer to a prompt waits until the first has computed it, and takes it from there."""
        return any(
            other.request is sequence.request and len(other.tokens) == len(other.request.prompt_ids)
            for other in self.running
        )

    def _reserve(self) -> None:
        """Make room for every running sequence; when there is none, the last that came goes back to the queue."""
        for sequence in list(self.running):
            while sequence in self.running and not self._runner.reserve(sequence):
                self._back_to_queue(self.running[-1])

    def _back_to_queue(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._runner.release(sequence)
        self.waiting.appendleft(sequence)
