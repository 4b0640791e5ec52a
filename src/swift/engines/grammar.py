"""Answers held to a JSON schema: llguidance says which tokens may come next."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swift.core.errors import SwiftError
from swift.core.optional_imports import need

JSON_OBJECT = "json_object"


class Grammar:
    """The state of one answer in its grammar."""

    def __init__(self, matcher: Any):
        self._matcher = matcher

    def masked(self, scores: Tensor) -> Tensor:
        """`scores`, (vocabulary,), with -inf for every token the grammar forbids here."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        allowed = torch.zeros(scores.shape[-1], dtype=torch.bool)
        count = min(len(bits), len(allowed))
        allowed[:count] = torch.from_numpy(bits[:count]).bool()
        return scores.masked_fill(~allowed.to(scores.device), -math.inf)

    def took(self, token_id: int) -> None:
        """Go on with `token_id`, which `masked` allowed."""
        self._matcher.consume_token(token_id)

    @property
    def complete(self) -> bool:
        """Whether the answer is whole and nothing may follow."""
        return self._matcher.is_stopped()


class Grammars:
    """Makes grammars for one tokenizer; reading its vocabulary takes about a second and is done once, on first use."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._vocabulary: Any = None

    def make(self, text: str) -> Grammar:
        """A grammar from a JSON schema, or from `json_object`. Raises SwiftError for one that cannot be followed."""
        llguidance = need("llguidance", extra="serve", why="an answer held to a grammar")
        schema = {"type": "object"} if text == JSON_OBJECT else json.loads(text)
        # Compact, or a small model may write white space until its tokens run out.
        options = {"whitespace_flexible": False, "coerce_one_of": True}
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=options)
        except ValueError as error:
            raise SwiftError("the JSON schema cannot be used", why=str(error)) from error
        matcher = llguidance.LLMatcher(self._load(), grammar, log_level=0)
        if matcher.is_error():
            raise SwiftError("the JSON schema cannot be used", why=matcher.get_error().splitlines()[0])
        return Grammar(matcher)

    def _load(self) -> Any:
        if self._vocabulary is None:
            import llguidance.hf

            self._vocabulary = llguidance.hf.from_tokenizer(self._tokenizer)
        return self._vocabulary
