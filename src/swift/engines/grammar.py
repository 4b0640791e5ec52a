"""Answers held to a JSON schema, a regular expression or a grammar: llguidance says which tokens may come next."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swift.core.errors import SwiftError
from swift.core.optional_imports import need
from swift.engines.base import Constraint
from swift.engines.json_schema import guided_schema

NAMES = {
    "json": "the JSON schema",
    "regex": "the regular expression",
    "choice": "the choice",
    "lark": "the grammar",
}


class Grammar:
    """The state of one answer in its grammar."""

    def __init__(self, matcher: Any):
        self._matcher = matcher
        self._stuck = False

    def masked(self, scores: Tensor) -> Tensor:
        """`scores`, (vocabulary,), with -inf for every token the grammar forbids here; unchanged after a `failure`."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        allowed = torch.zeros(scores.shape[-1], dtype=torch.bool)
        count = min(len(bits), len(allowed))
        allowed[:count] = torch.from_numpy(bits[:count]).bool()
        self._stuck = not bool(allowed.any())
        if self.failure:
            return scores
        return scores.masked_fill(~allowed.to(scores.device), -math.inf)

    def took(self, token_id: int) -> None:
        """Go on with `token_id`, which `masked` allowed."""
        self._matcher.consume_token(token_id)

    @property
    def complete(self) -> bool:
        """Whether the answer is whole and nothing may follow. A grammar that failed has no whole answer."""
        return self._matcher.is_stopped() and not self.failure

    @property
    def failure(self) -> str | None:
        """Why the answer can no longer be followed, in words: limits of the parser, or no token that goes on."""
        if self._matcher.is_error():
            return f"the answer can no longer be held to its grammar: {_reason(self._matcher)}"
        return "no token of the vocabulary goes on with the grammar" if self._stuck else None


class Grammars:
    """Makes grammars for one tokenizer; reading its vocabulary takes about a second and is done once, on first use."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._vocabulary: Any = None

    def make(self, constraint: Constraint) -> Grammar:
        """A grammar for one answer. Raises SwiftError for a constraint that cannot be followed."""
        llguidance = need("llguidance", extra="serve", why="an answer held to a grammar")
        name = NAMES[constraint.kind]
        matchers = llguidance.LLMatcher
        try:
            if constraint.kind == "json":
                text = matchers.grammar_from_json_schema(guided_schema(json.loads(constraint.text)))
            elif constraint.kind == "choice":
                choices = " | ".join(json.dumps(choice) for choice in json.loads(constraint.text))
                text = matchers.grammar_from_lark(f"start: {choices}")
            elif constraint.kind == "regex":
                text = matchers.grammar_from_regex(constraint.text)
            else:
                text = matchers.grammar_from_lark(constraint.text)
        except RecursionError:
            raise SwiftError(f"{name} cannot be used", why="it is nested too deeply") from None
        except ValueError as error:
            raise SwiftError(f"{name} cannot be used", why=str(error)) from error
        matcher = matchers(self._load(), text, log_level=0)
        # What is forced from the start is tried now: a schema beyond the parser's limits fails before the first token.
        trial = matcher.deep_copy()
        for _ in range(2):
            if not trial.is_error() and not trial.is_stopped():
                trial.consume_tokens(trial.compute_ff_tokens())
        if trial.is_error():
            raise SwiftError(f"{name} cannot be used", why=_reason(trial))
        return Grammar(matcher)

    def _load(self) -> Any:
        if self._vocabulary is None:
            import llguidance.hf

            self._vocabulary = llguidance.hf.from_tokenizer(self._tokenizer)
        return self._vocabulary


def _reason(matcher: Any) -> str:
    """The error on one line; llguidance puts a listing of its state behind it."""
    lines = matcher.get_error().partition("<state>")[0].splitlines()
    return " ".join(line.strip() for line in lines if line.strip(" ^|"))
