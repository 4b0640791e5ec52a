"""The bytes that each token adds to a text. A token may be a part of a character, which no text can show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any

from swift.engines.base import TokenLogprob

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""A byte that has no token of its own text, in vocabularies of SentencePiece."""


class TokenBytes:
    """Looks tokens up in the vocabulary of one tokenizer, by the way its own decoder writes text."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer

    def of_answer(self, tokens: Sequence[TokenLogprob], *, first: bool) -> list[bytes | None]:
        """The bytes of each token; None for those that are left out of the text (ends of turns).

        `first` says that the answer begins with these tokens: SentencePiece drops a space there.
        """
        pieces = [self.of(token.token_id, token.token) for token in tokens]
        if first and tokens and pieces[0] and pieces[0].startswith(b" ") and not tokens[0].token.startswith(" "):
            pieces[0] = pieces[0][1:]
        return pieces

    def of(self, token_id: int, text: str) -> bytes | None:
        """The bytes of one token; `text` is what it is called where the vocabulary does not tell (id below 0)."""
        if token_id in self._special:
            return None
        if token_id < 0 or token_id in self._added or not self._kinds & {"ByteLevel", "ByteFallback", "Metaspace"}:
            return text.encode()
        piece = self._tokenizer.convert_ids_to_tokens(token_id)
        if piece is None:  # the model's head has more rows than the tokenizer has tokens
            return b""
        if "ByteLevel" in self._kinds:
            table = byte_of_character()
            return b"".join(bytes([table[c]]) if c in table else c.encode() for c in piece)
        if byte := _BYTE.fullmatch(piece):
            return bytes([int(byte[1], 16)])
        return piece.replace("▁", " ").encode()

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(self._tokenizer.all_special_ids)

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self._tokenizer.added_tokens_decoder)

    @cached_property
    def _kinds(self) -> frozenset[str]:
        """The kinds of decoders, which say how the vocabulary writes bytes and spaces."""
        if not self._tokenizer.is_fast:
            return frozenset()
        decoder = json.loads(self._tokenizer.backend_tokenizer.to_str())["decoder"]
        return frozenset(_kinds(decoder)) if decoder else frozenset()


def _kinds(decoder: Mapping[str, Any]) -> Iterable[str]:
    yield decoder["type"]
    for inner in decoder.get("decoders", ()):
        yield from _kinds(inner)


@cache
def byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet: bytes that print stand for themselves, the others for the characters from 256 on, in order."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): byte for byte in plain}
    rest = [byte for byte in range(256) if chr(byte) not in table]
    return table | {chr(256 + place): byte for place, byte in enumerate(rest)}


def characters(text: bytes) -> int:
    """How many characters begin in `text`."""
    return sum(byte & 0xC0 != 0x80 for byte in text)
