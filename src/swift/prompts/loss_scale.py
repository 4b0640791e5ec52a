"""Loss-scale rules: how much each part of an answer counts in the loss.

A rule file is JSON: `{"Action:": [2, 2]}` weighs the text `Action:` and what follows it up to the next such text;
`{"<.*?>": [2]}` weighs the matches of a regular expression; `{"response": {...}, "query": {"key": [3]}}` weighs a
whole answer whose question contains the key. Priority: query, then literal, then regular expression. All other text
weighs 1, and the order of the text is kept.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from swift.core.errors import SwiftError
from swift.core.log import once

_SHIPPED = Path(__file__).parent / "loss_scale"
NAMES = tuple(sorted(path.stem for path in _SHIPPED.glob("*.json")))


@dataclass(frozen=True)
class LossScale:
    """The rules of one file."""

    literals: Mapping[str, tuple[float, float]]
    """Text -> its own weight, and the weight of what follows it."""
    patterns: Mapping[str, float]
    queries: Mapping[str, float]

    def split(self, query: str, response: str) -> list[tuple[str, float]]:
        """The answer in parts with their weights; the parts together are the answer."""
        for key, weight in self.queries.items():
            if key in query:
                return [(response, weight)]
        parts = self._split_literals(response)
        return [piece for part in parts for piece in (self._split_patterns(part[0]) if part[1] is None else [part])]

    def _split_literals(self, response: str) -> list[tuple[str, Any]]:
        """Weight None marks the text before the first literal, which is all that patterns look at."""
        if not self.literals:
            return [(response, None)]
        before, *pairs = self._literal.split(response)
        parts: list[tuple[str, Any]] = [(before, None)] if before or not pairs else []
        for key, after in zip(pairs[::2], pairs[1::2], strict=True):
            parts += [(key, self.literals[key][0]), (after, self.literals[key][1])]
        return parts

    def _split_patterns(self, text: str) -> list[tuple[str, float]]:
        """The leftmost match wins; of two that start together, the rule that stands first."""
        if not self.patterns:
            return [(text, 1.0)]
        parts, position = [], 0
        while hit := self._next_match(text, position):
            match, weight = hit
            if match.start() > position:
                parts.append((text[position : match.start()], 1.0))
            parts.append((match.group(), weight))
            position = match.end()
        if position < len(text) or not parts:
            parts.append((text[position:], 1.0))
        return parts

    def _next_match(self, text: str, position: int) -> tuple[re.Match[str], float] | None:
        matches = [(pattern.search(text, position), weight) for pattern, weight in self._compiled]
        nonempty = [(match, weight) for match, weight in matches if match and match.end() > match.start()]
        return min(nonempty, key=lambda pair: pair[0].start(), default=None)

    @cached_property
    def _literal(self) -> re.Pattern[str]:
        return re.compile("(" + "|".join(map(re.escape, self.literals)) + ")")

    @cached_property
    def _compiled(self) -> list[tuple[re.Pattern[str], float]]:
        return [(re.compile(pattern), weight) for pattern, weight in self.patterns.items()]


def load_loss_scale(given: str | Path | Mapping[str, Any]) -> LossScale:
    """Rules by shipped name (default, alpha-umi, agent-flan), from a JSON file, or from a dict.

    Raises SwiftError when there is no such file or a rule has not the form described above.
    """
    if isinstance(given, Mapping):
        return _rules(given, "loss_scale")
    name = str(given).lower()
    path = _SHIPPED / f"{name}.json" if name in NAMES else Path(given)
    if not path.is_file():
        raise SwiftError(
            f"there are no loss-scale rules called {str(given)!r}",
            where="--loss_scale_config_path",
            next=f"give {', '.join(NAMES)} or the path of a JSON file",
        )
    try:
        rules = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise SwiftError("the loss-scale file is not valid JSON", where=str(path), why=str(error)) from None
    return _rules(rules, str(path))


def _rules(rules: Any, where: str) -> LossScale:
    if not isinstance(rules, Mapping):
        raise SwiftError("loss-scale rules are not a JSON object", where=where, why=repr(rules)[:80])
    response, query = rules, {}
    if isinstance(rules.get("response"), Mapping) or isinstance(rules.get("query"), Mapping):
        response, query = rules.get("response") or {}, rules.get("query") or {}
        others = sorted(rules.keys() - {"response", "query"})
        if not isinstance(response, Mapping) or not isinstance(query, Mapping) or others:
            raise SwiftError(
                "loss-scale rules with response or query are two objects and nothing else",
                where=where,
                why=f"beside them: {', '.join(others)}" if others else "one of them is not an object",
                next='write {"response": {"Action:": [2.0, 2.0]}, "query": {}}',
            )
    weights = {key: _numbers(key, value, where) for key, value in response.items()}
    for key, values in weights.items():
        if len(values) not in (1, 2):
            once(f"{where}: the rule {key!r} has {len(values)} numbers and is left out; one or two are meant")
    patterns = {key: values[0] for key, values in weights.items() if len(values) == 1}
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise SwiftError(
                f"the loss-scale rule {pattern!r} is no regular expression", where=where, why=str(error)
            ) from None
    return LossScale(
        literals={key: (values[0], values[1]) for key, values in weights.items() if len(values) == 2},
        patterns=patterns,
        queries={key: _numbers(key, value, where)[0] for key, value in query.items()},
    )


def _numbers(key: str, value: Any, where: str) -> list[float]:
    values = value if isinstance(value, list | tuple) else [value]
    if not key or not values or not all(isinstance(x, int | float) and 0 <= x < math.inf for x in values):
        raise SwiftError(
            f"the loss-scale rule {key!r} is not a list of weights",
            where=where,
            why=repr(value)[:80],
            next='write for example "Action:": [2.0, 2.0]',
        )
    return [float(x) for x in values]
