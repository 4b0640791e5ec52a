"""Prompt lookup: what followed the last tokens when they stood in the text before may follow them again.

Summaries quote, code repeats its names. A guess costs nothing, and the model looks at all of it in one step, so a right
one is that many steps saved (https://github.com/apoorvumang/prompt-lookup-decoding). Every token is still the model's
own pick: a guess is only kept as long as the picks agree with it.
"""

from __future__ import annotations

from collections.abc import Sequence

SIZES = (3, 2)
"""Last tokens that are looked for, the longer ones first."""
MOST = 6
"""Tokens of a guess."""


class PromptLookup:
    """Guesses for one answer; it tries more where they are right, and less where they are not."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._read = 0
        self._length = MOST

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """What may follow `tokens`, at most so many; they are those of the last call and more."""
        self._look_at(tokens)
        places = (self._after.get(tuple(tokens[-size:])) for size in SIZES)
        place = next((place for place in places if place is not None), None)
        if place is None:
            return []
        guess: list[int] = []
        for at in range(place, place + min(self._length, most)):
            # A text that repeats itself without end is guessed beyond its end.
            guess.append(tokens[at] if at < len(tokens) else guess[at - len(tokens)])
        return guess

    def learn(self, guessed: int, right: int) -> None:
        """`right` of the `guessed` tokens were picked."""
        self._length = min(MOST, 2 * guessed + 1) if right == guessed else max(1, right)

    def _look_at(self, tokens: Sequence[int]) -> None:
        """Note where each run of tokens was last followed by something."""
        for place in range(max(self._read, 1), len(tokens)):
            for size in SIZES:
                if place >= size:
                    self._after[tuple(tokens[place - size : place])] = place
        self._read = len(tokens)
