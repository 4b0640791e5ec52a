"""Texts to token ids, in the fastest way the tokenizer has, with the same result as calling it."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

from swift.prompts.types import Segment

Ids = Sequence[int]


class Tokens:
    """A tokenizer of transformers, used without adding special tokens.

    With `whole`, an example's text is tokenized in one piece and then cut into segments, so that its ids are those of
    the plain text; else each segment is tokenized for itself, as a model sees a prompt and then writes its answer.
    """

    def __init__(self, tokenizer: Any, *, whole: bool):
        self.tokenizer = tokenizer
        self.whole = whole
        self._backend: Any = tokenizer.backend_tokenizer if tokenizer.is_fast else None

    @cached_property
    def bos(self) -> int | None:
        """The begin-of-sequence token, if there is one."""
        return self.tokenizer.bos_token_id

    @property
    def eos(self) -> tuple[int, ...]:
        """The end-of-sequence token, if there is one."""
        return () if self.tokenizer.eos_token_id is None else (self.tokenizer.eos_token_id,)

    def of_segments(self, examples: Sequence[Sequence[Segment]]) -> list[list[Ids]]:
        """The ids of every segment of every example."""
        if self.whole:
            return list(self._cut(examples))
        contents = (segment.content for segments in examples for segment in segments)
        texts = list(dict.fromkeys(content for content in contents if isinstance(content, str)))
        known = dict(zip(texts, self.of_texts(texts), strict=True))
        return [[_ids(segment.content, known) for segment in segments] for segments in examples]

    def of_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""
        if self._backend is None:
            return [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        self._reset()
        return [encoding.ids for encoding in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def _cut(self, examples: Sequence[Sequence[Segment]]) -> Iterator[list[Ids]]:
        """A token belongs to the segment that its first character stands in, not counting spaces in front of a word."""
        texts = ["".join(str(segment.content) for segment in segments) for segments in examples]
        if self._backend is None:
            for segments, text in zip(examples, texts, strict=True):
                yield self._cut_slowly(segments, text)
            return
        self._reset()
        encodings = self._backend.encode_batch(texts, add_special_tokens=False)
        for segments, text, encoding in zip(examples, texts, encodings, strict=True):
            ids = encoding.ids
            if len(segments) == 1:
                yield [ids]
                continue
            starts = [start for start, _ in encoding.offsets]
            ends = accumulate(len(segment.content) for segment in segments)
            borders = [0, *(_border(text, starts, end) for end in ends)]
            yield [ids[a:b] for a, b in pairwise(borders)]

    def _cut_slowly(self, segments: Sequence[Segment], text: str) -> list[Ids]:
        """For tokenizers that give no offsets: a border is where the ids of the text up to it stop agreeing."""
        ids = self.of_texts([text])[0]
        ends = accumulate(len(segment.content) for segment in segments)
        borders = [0]
        for end in ends:
            before = ids if end == len(text) else self.of_texts([text[:end]])[0]
            same = next((i for i, (a, b) in enumerate(zip(ids, before, strict=False)) if a != b), len(before))
            borders.append(max(borders[-1], same))
        return [ids[a:b] for a, b in pairwise(borders)]

    def _reset(self) -> None:
        """A padded call of the tokenizer elsewhere leaves its settings behind in the backend."""
        if self._backend.padding is not None:
            self._backend.no_padding()
        if self._backend.truncation is not None:
            self._backend.no_truncation()

    def decode(self, ids: Ids) -> str:
        """The text of ids, special tokens included."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    @cached_property
    def digest(self) -> str:
        """Hex digest of the vocabulary and the rules that split text."""
        if self._backend is not None:
            facts = self._backend.to_str()
        else:
            facts = repr(sorted(self.tokenizer.get_vocab().items()))
        return hashlib.sha256(facts.encode()).hexdigest()


def _border(text: str, starts: Sequence[int], end: int) -> int:
    """The first token of the segment that begins at the character `end`."""
    place = bisect_left(starts, end)
    if place and end < len(text) and text[end - 1] == " " and not text[starts[place - 1] : end].strip(" "):
        return place - 1
    return place


def _ids(content: str | tuple[int, ...], known: Mapping[str, list[int]]) -> Ids:
    return known[content] if isinstance(content, str) else content
