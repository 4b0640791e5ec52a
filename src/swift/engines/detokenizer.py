"""From token ids to text that may be shown: never half a character, never the beginning of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

REPLACEMENT = "\ufffd"
"""What decoding puts where bytes of a character are missing."""


WINDOW = 8
"""Tokens behind which decoding starts anew, a piece back."""


class Detokenizer:
    """The text of growing token ids, piece by piece. The pieces together are the text of all ids."""

    def __init__(self, tokenizer: Any, shown: frozenset[int] = frozenset()):
        """Special tokens are left out but for those `shown`."""
        self._tokenizer = tokenizer
        self._hidden = frozenset(tokenizer.all_special_ids) - shown if shown else frozenset()
        self._ids: list[int] = []
        # Decoding starts a few tokens back, so that spaces and joined characters come out as in the whole.
        self._start = 0
        self._shown = 0
        self._before = ""
        """The text from there to what was shown."""

    def add(self, token_id: int) -> str:
        """The text that `token_id` makes certain; empty while a character is not whole."""
        self._ids.append(token_id)
        now = self._decode(self._ids[self._start :])
        if now.endswith(REPLACEMENT) or len(now) <= len(self._before):
            return ""
        piece = now[len(self._before) :]
        last, self._shown, self._before = self._shown, len(self._ids), now
        if self._shown - self._start > WINDOW:
            self._start, self._before = last, self._decode(self._ids[last:])
        return piece

    def rest(self) -> str:
        """What is left when no more ids come, broken characters included."""
        now = self._decode(self._ids[self._start :])
        piece = now[len(self._before) :]
        self._start, self._shown, self._before = len(self._ids), len(self._ids), ""
        return piece

    def _decode(self, ids: list[int]) -> str:
        if self._hidden:
            ids = [each for each in ids if each not in self._hidden]
        return self._tokenizer.decode(ids, skip_special_tokens=not self._hidden) if ids else ""


class StopStrings:
    """Text up to the first stop string. What may be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]):
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def add(self, piece: str) -> tuple[str, bool]:
        """The text that may be shown now, and whether a stop string has ended the answer."""
        if not self._stops:
            return piece, False
        text = self._held + piece
        hits = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if hits:
            self._held = ""
            return text[: min(hits)], True
        held = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], False

    def rest(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if stop.startswith(text[-size:])), 0)
