"""Guessed tokens of an answer that runs alone: proposed, computed beside its last token, kept or cut off again."""

from __future__ import annotations

from torch import Tensor

from swift.engines.runner import Runner, SlotRunner
from swift.engines.scheduler import Work
from swift.engines.sequence import Sequence


class Guesses:
    """Where the runner computes several tokens with the very numbers of one after the other; `wanted` may rule it out.

    `guessed` and `right` count the tokens so far.
    """

    def __init__(self, runner: Runner, *, wanted: bool = True):
        self._runner = runner if wanted and isinstance(runner, SlotRunner) else None
        self.guessed = self.right = 0

    def propose(self, work: Work) -> list[int]:
        """What may follow the last token of an answer that runs alone; beside others there is no time to spare."""
        if self._runner is None or len(work.sequences) > 1 or work.counts != [1]:
            return []
        (sequence,) = work.sequences
        most = min(self._runner.room(sequence), sequence.limit - len(sequence.tokens)) - 1
        return sequence.lookup.guess(sequence.tokens, most)

    def extend(self, sequence: Sequence, guess: list[int]) -> Tensor:
        """Logits after the last token and after each guessed one, (1 + guesses, vocabulary)."""
        assert self._runner is not None
        return self._runner.extend_by(sequence, [sequence.tokens[-1], *guess])

    def settle(self, sequence: Sequence, guess: list[int], right: int) -> None:
        """The first `right` guesses were picked, and the sequence has gone on with them."""
        assert self._runner is not None
        self._runner.cut(sequence)
        sequence.lookup.learn(len(guess), right)
        self.guessed, self.right = self.guessed + len(guess), self.right + right
